// Draws all points with WebGL 2: nothing but buffers, one program, one call.

import { data } from "./data.js";

const VERTEX = `#version 300 es
in vec2 origin, place;
in vec4 color;
in vec2 style; // shape, size
uniform vec2 scale, shift;
uniform float blend, size;
out vec4 fill;
flat out float shape, radius;
void main() {
  gl_Position = vec4(mix(origin, place, blend) * scale + shift, 0.0, 1.0);
  gl_PointSize = max(1.0, size * style.y / 64.0);
  radius = gl_PointSize / 2.0;
  shape = style.x;
  fill = color;
}`;

// The distance from the middle is 1 at the edge of each shape.
const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 fill;
flat in float shape, radius;
out vec4 pixel;
void main() {
  vec2 at = 2.0 * gl_PointCoord - 1.0;
  float reach;
  if (radius < 2.5 || shape < 0.5) reach = length(at);
  else if (shape < 1.5) reach = max(abs(at.x) * 1.1 - at.y * 0.55 + 0.28, at.y * 1.25 + 0.1);
  else if (shape < 2.5) reach = max(abs(at.x), abs(at.y)) * 1.2;
  else if (shape < 3.5) reach = abs(at.x) + abs(at.y);
  else reach = max(min(abs(at.x + at.y), abs(at.x - at.y)) * 1.7, max(abs(at.x), abs(at.y)) * 1.15);
  float cover = clamp((1.0 - reach) * radius + 0.5, 0.0, 1.0) * fill.a;
  if (cover < 0.02) discard;
  float edge = smoothstep(0.62, 0.9, reach) * step(3.5, radius) * 0.3;
  pixel = vec4(fill.rgb * (1.0 - edge) * cover, cover);
}`;

export function makePoints(canvas) {
  const gl = canvas.getContext("webgl2", { alpha: true, antialias: false, depth: false });
  if (!gl) return null;
  const program = link(gl);
  gl.useProgram(program);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const at = (name) => gl.getUniformLocation(program, name);
  const uniforms = { scale: at("scale"), shift: at("shift"), blend: at("blend"), size: at("size") };
  const buffer = (name, width, type, normalized) => {
    const made = gl.createBuffer();
    const index = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, made);
    gl.enableVertexAttribArray(index);
    gl.vertexAttribPointer(index, width, type, normalized, 0, 0);
    return (values) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, made);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    };
  };
  const setOrigin = buffer("origin", 2, gl.UNSIGNED_SHORT, true);
  const setPlace = buffer("place", 2, gl.UNSIGNED_SHORT, true);
  const setColors = buffer("color", 4, gl.UNSIGNED_BYTE, true);
  const setStyles = buffer("style", 2, gl.UNSIGNED_BYTE, false);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  return {
    setMaps(before, after) {
      setOrigin(before.places);
      setPlace(after.places);
    },
    // `order` holds rows, those drawn last on top.
    setStyles(colors, styles, order) {
      setColors(colors);
      setStyles(styles);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, order, gl.STATIC_DRAW);
    },
    draw({ scale, shift, blend, size }) {
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2fv(uniforms.scale, scale);
      gl.uniform2fv(uniforms.shift, shift);
      gl.uniform1f(uniforms.blend, blend);
      gl.uniform1f(uniforms.size, size);
      gl.drawElements(gl.POINTS, data.count, gl.UNSIGNED_INT, 0);
    },
    finish: () => gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)),
  };
}

function link(gl) {
  const program = gl.createProgram();
  for (const [type, source] of [
    [gl.VERTEX_SHADER, VERTEX],
    [gl.FRAGMENT_SHADER, FRAGMENT],
  ]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
    throw new Error(gl.getProgramInfoLog(program));
  }
  return program;
}
