// The whole map in small, and where the view is in it.

import { camera, pixels, toMap } from "./camera.js";
import { data } from "./data.js";
import { byId } from "./dom.js";
import { xOf, yOf } from "./grid.js";
import { change } from "./state.js";

const SIDE = 104;
const cache = new Map();

function pictureOf(map) {
  if (cache.has(map)) return cache.get(map);
  const counts = new Uint32Array(SIDE * SIDE);
  for (let row = 0; row < data.count; row++) {
    const column = Math.min(SIDE - 1, Math.floor(xOf(map, row) * SIDE));
    counts[column + SIDE * Math.min(SIDE - 1, Math.floor((1 - yOf(map, row)) * SIDE))]++;
  }
  const most = Math.log1p(counts.reduce((a, b) => Math.max(a, b), 1));
  const image = new ImageData(SIDE, SIDE);
  counts.forEach((number, i) => {
    const alpha = number ? 70 + (185 * Math.log1p(number)) / most : 0;
    image.data.set([128, 128, 132, alpha], 4 * i);
  });
  cache.set(map, image);
  return image;
}

let drawnView = "";

export function drawMinimap(map) {
  const canvas = byId("minimap");
  const isNeeded = camera.zoom > 1.3;
  if (canvas.hidden === isNeeded) canvas.hidden = !isNeeded; // writing it alone costs a layout
  const seen = [map.name, camera.x, camera.y, camera.zoom, camera.width, camera.height].join();
  if (!isNeeded || seen === drawnView) return;
  drawnView = seen;
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  context.putImageData(pictureOf(map), 0, 0);
  const [wide, high] = [camera.width / pixels(), camera.height / pixels()];
  context.strokeStyle = getComputedStyle(canvas).getPropertyValue("--accent");
  context.lineWidth = 1.5;
  context.strokeRect(
    toMap(0, 0)[0] * SIDE,
    (1 - camera.y - high / 2) * SIDE,
    Math.max(3, wide * SIDE),
    Math.max(3, high * SIDE),
  );
}

export function watchMinimap(redraw) {
  const canvas = byId("minimap");
  const go = (event) => {
    if (!event.buttons) return;
    const box = canvas.getBoundingClientRect();
    camera.x = (event.clientX - box.left) / box.width;
    camera.y = 1 - (event.clientY - box.top) / box.height;
    redraw();
    change({ view: true });
  };
  canvas.addEventListener("pointerdown", go);
  canvas.addEventListener("pointermove", go);
}
