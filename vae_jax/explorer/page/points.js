// Draws all points with WebGL 2: nothing but buffers, one program, one call. Where a browser has no
// graphics card to do it with, `stamps.js` draws them.

import { data } from "./data.js";
import { ALPHAS, SIZES } from "./levels.js";
import { makeStamps } from "./stamps.js";

const array = (numbers) => `float[](${numbers.map((number) => number.toFixed(2)).join()})`;

// One number goes from a vertex to its pixels: whatever else did would be set up for every point.
const VERTEX = `#version 300 es
in vec4 places; // on the map before, and on this one
in highp uint look;
uniform vec2 scale, shift;
uniform float blend, size;
flat out highp uint code;
const float sizes[4] = ${array(SIZES)};
void main() {
  gl_Position = vec4(mix(places.xy, places.zw, blend) * scale + shift, 0.0, 1.0);
  code = look;
  gl_PointSize = max(1.0, size * sizes[look >> 27]);
}`;

// The distance from the middle is 1 at the edge of each shape.
const FRAGMENT = `#version 300 es
precision mediump float;
flat in highp uint code;
uniform highp float size;
out vec4 pixel;
const float sizes[4] = ${array(SIZES)};
const float alphas[4] = ${array(ALPHAS)};
void main() {
  vec3 color = vec3(code & 255u, (code >> 8) & 255u, (code >> 16) & 255u) / 255.0;
  highp uint level = code >> 27, shape = (code >> 24) & 7u;
  float radius = 0.5 * max(1.0, size * sizes[level]);
  vec2 at = 2.0 * gl_PointCoord - 1.0;
  float reach;
  if (radius < 2.5 || shape == 0u) reach = length(at);
  else if (shape == 1u) reach = max(abs(at.x) * 1.1 - at.y * 0.55 + 0.28, at.y * 1.25 + 0.1);
  else if (shape == 2u) reach = max(abs(at.x), abs(at.y)) * 1.2;
  else if (shape == 3u) reach = abs(at.x) + abs(at.y);
  else reach = max(min(abs(at.x + at.y), abs(at.x - at.y)) * 1.7, max(abs(at.x), abs(at.y)) * 1.15);
  float cover = clamp((1.0 - reach) * radius + 0.5, 0.0, 1.0) * alphas[level];
  float edge = radius < 3.5 ? 0.0 : smoothstep(0.62, 0.9, reach) * 0.3;
  pixel = vec4(color * (1.0 - edge) * cover, cover);
}`;

export function makePoints(canvas) {
  if (!hasGraphicsCard()) return makeStamps(canvas);
  const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false });
  const program = link(gl);
  gl.useProgram(program);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const at = (name) => gl.getUniformLocation(program, name);
  const uniforms = { scale: at("scale"), shift: at("shift"), blend: at("blend"), size: at("size") };
  const buffer = (name, point) => {
    const made = gl.createBuffer();
    const index = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, made);
    gl.enableVertexAttribArray(index);
    point(index);
    return (values) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, made);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    };
  };
  return {
    // [N, 4]; the last are drawn on top
    setPlaces: buffer("places", (at) =>
      gl.vertexAttribPointer(at, 4, gl.UNSIGNED_SHORT, true, 0, 0),
    ),
    // [N]; a colour, its red the lowest byte, and in the highest the shape and eight times the level
    setLooks: buffer("look", (at) => gl.vertexAttribIPointer(at, 1, gl.UNSIGNED_INT, 0, 0)),
    draw({ scale, shift, blend, size, paper }) {
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(...paper.map((byte) => byte / 255), 1);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2fv(uniforms.scale, scale);
      gl.uniform2fv(uniforms.shift, shift);
      gl.uniform1f(uniforms.blend, blend);
      gl.uniform1f(uniforms.size, size);
      gl.drawArrays(gl.POINTS, 0, data.count);
    },
  };
}

// Whether WebGL 2 is there, and is not a program that does what a card would.
function hasGraphicsCard() {
  const gl = document
    .createElement("canvas")
    .getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  if (!gl) return false;
  const about = gl.getExtension("WEBGL_debug_renderer_info");
  const name = gl.getParameter(about ? about.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
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
