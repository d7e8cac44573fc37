// Draws all points without WebGL, pixel by pixel: where there is no graphics card, WebGL spends
// most of its time on setting up each point, and this is several times as fast.

import { data } from "./data.js";
import { ALPHAS, SIZES } from "./levels.js";

const PHASES = 4; // places within a pixel, each way, at which a point is drawn
const ALL = 256; // the weight of what covers a pixel
const SLIGHT = 6; // a weight that nobody sees

export function makeStamps(canvas) {
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  let [places, looks, image, pixels] = [null, null, null, null];
  return {
    setPlaces: (values) => (places = values),
    setLooks: (values) => (looks = values),
    draw({ scale, shift, blend, size, paper }) {
      const margin = Math.ceil(size) + 2; // so that points at an edge need no clipping
      const [width, height] = [canvas.width + 2 * margin, canvas.height + 2 * margin];
      if (!image || image.width !== width || image.height !== height) {
        image = new ImageData(width, height);
        pixels = new Uint32Array(image.data.buffer);
      }
      pixels.fill(packed(paper));
      const across = {
        by: (scale[0] * canvas.width) / 2,
        from: ((shift[0] + 1) * canvas.width) / 2,
      };
      const down = {
        by: (-scale[1] * canvas.height) / 2,
        from: ((1 - shift[1]) * canvas.height) / 2,
      };
      stampAll(
        { places, looks, blend, across, down, margin, width, height, pixels },
        stampsOf(size, width),
      );
      context.putImageData(image, -margin, -margin);
    },
  };
}

// Each stamp is made when it is first needed: by the point's shape and level, and its phase.
function stampsOf(size, width) {
  const made = [];
  return (code, phase) =>
    (made[code * PHASES * PHASES + phase] ||= stamp(code, phase, size, width));
}

// The pixels of a point around the one that its middle is in: first those that it covers whole.
function stamp(code, phase, size, width) {
  const radius = 0.5 * Math.max(1, size * SIZES[code >> 3]);
  const middle = [(phase % PHASES) + 0.5, Math.floor(phase / PHASES) + 0.5].map(
    (part) => part / PHASES,
  );
  const reach = Math.ceil(radius + 0.5);
  const found = [];
  for (let j = -reach; j <= reach; j++) {
    for (let i = -reach; i <= reach; i++) {
      const at = [i + 0.5 - middle[0], j + 0.5 - middle[1]];
      const far = distance(code & 7, radius, at[0] / radius, at[1] / radius);
      const cover = clamp((1 - far) * radius + 0.5) * ALPHAS[code >> 3];
      const under = Math.round(ALL * (1 - cover));
      const over = Math.round((ALL - under) * (1 - shade(radius, far)));
      if (over > SLIGHT) found.push({ offset: i + width * j, over, under });
    }
  }
  const whole = found.filter(({ over }) => over === ALL);
  const all = [...whole, ...found.filter(({ over }) => over !== ALL)];
  return {
    whole: whole.length,
    offsets: Int32Array.from(all, ({ offset }) => offset),
    over: Int32Array.from(all, ({ over }) => over),
    under: Int32Array.from(all, ({ under }) => under),
  };
}

// How far a place is from the middle: 1 at the edge of a shape. The same as in points.js.
function distance(shape, radius, x, y) {
  if (radius < 2.5 || shape === 0) return Math.hypot(x, y);
  if (shape === 1) return Math.max(Math.abs(x) * 1.1 - y * 0.55 + 0.28, y * 1.25 + 0.1);
  if (shape === 2) return Math.max(Math.abs(x), Math.abs(y)) * 1.2;
  if (shape === 3) return Math.abs(x) + Math.abs(y);
  const cross = Math.min(Math.abs(x + y), Math.abs(x - y)) * 1.7;
  return Math.max(cross, Math.max(Math.abs(x), Math.abs(y)) * 1.15);
}

// Points that are large enough have a darker edge.
function shade(radius, far) {
  if (radius < 3.5) return 0;
  const share = clamp((far - 0.62) / 0.28);
  return share * share * (3 - 2 * share) * 0.3;
}

function stampAll({ places, looks, blend, across, down, margin, width, height, pixels }, stampOf) {
  const [acrossStep, downStep] = [across.by / 65535, down.by / 65535];
  const before = 1 - blend;
  for (let i = 0; i < data.count; i++) {
    const [x, y] = [4 * i, 4 * i + 1];
    const left = margin + across.from + acrossStep * (before * places[x] + blend * places[x + 2]);
    const top = margin + down.from + downStep * (before * places[y] + blend * places[y + 2]);
    const [column, row] = [Math.floor(left), Math.floor(top)];
    const reach = margin - 1;
    if (column < reach || row < reach || column >= width - reach || row >= height - reach) continue;
    const phase = Math.floor((left - column) * PHASES) + PHASES * Math.floor((top - row) * PHASES);
    const { whole, offsets, over, under } = stampOf(looks[i] >>> 24, phase);
    const start = column + width * row;
    const color = looks[i] | 0xff000000;
    for (let k = 0; k < whole; k++) pixels[start + offsets[k]] = color;
    const [redBlue, green] = [color & 0xff00ff, color & 0xff00];
    for (let k = whole; k < offsets.length; k++) {
      const old = pixels[start + offsets[k]];
      const mixed = Math.imul(redBlue, over[k]) + Math.imul(old & 0xff00ff, under[k]);
      const rest = Math.imul(green, over[k]) + Math.imul(old & 0xff00, under[k]);
      pixels[start + offsets[k]] =
        ((mixed >>> 8) & 0xff00ff) | ((rest >>> 8) & 0xff00) | 0xff000000;
    }
  }
}

function packed([red, green, blue]) {
  return red | (green << 8) | (blue << 16) | 0xff000000;
}

function clamp(value) {
  return Math.min(1, Math.max(0, value));
}
