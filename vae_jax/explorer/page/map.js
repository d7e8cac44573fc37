// The map: draws when something changed, and says which tracks are where.

import { camera, fit, pan, pixels, toMap, toScreen, transform, zoomAt } from "./camera.js";
import { paper, styling } from "./colors.js";
import { data } from "./data.js";
import { byId } from "./dom.js";
import { nearestPoint, visitBox, xOf, yOf } from "./grid.js";
import { drawMinimap, watchMinimap } from "./minimap.js";
import { countFitting, drawOverlay, findLabels } from "./overlay.js";
import { LEVELS } from "./levels.js";
import { makePoints } from "./points.js";
import { change, on, state } from "./state.js";
import { hideTip, startTip } from "./tip.js";

const REACH = 14; // CSS pixels from which a point is hit
const MORPH = 600; // ms in which one map becomes another
const WIDE = 620; // CSS pixels of the map from which it is centred beside the legend
const EDGE = 16; // CSS pixels from the edge up to which a track counts as seen

// What is seen of it beside the camera: what is hovered, how far one map has become another, ...
export const view = { hovered: -1, blend: 1, path: [], isDirty: false, density: 1 };
let points;
let order; // rows, as they are drawn
let shownMap = 0; // of data.maps

export function startMap() {
  points = makePoints(byId("points"));
  shownMap = state.map;
  restyle();
  resize();
  new ResizeObserver(resize).observe(byId("map"));
  byId("colors").addEventListener("toggle", resize);
  watchMinimap(redraw);
  startTip();
  on(["column", "fits", "selected", "theme"], restyle);
  on(["column", "theme", "names", "map"], () => findLabels(currentMap()));
  on(["fits"], () => {
    countFitting();
    redraw();
  });
  on(["names", "focus", "playing", "arrived"], redraw);
  on(["map"], morph);
  findLabels(currentMap());
}

export function currentMap() {
  return data.maps[state.map];
}

// Asks for a new picture in the next frame.
export function redraw() {
  if (view.isDirty) return;
  view.isDirty = true;
  requestAnimationFrame(() => view.isDirty && draw());
}

export function draw() {
  view.isDirty = false;
  points.draw({
    ...transform(),
    blend: view.blend,
    size: pointSize() * view.density,
    paper: paper(),
  });
  drawOverlay(byId("overlay"), currentMap(), view);
  drawMinimap(currentMap());
}

// Points are large where there are few, and grow slowly as one comes closer.
function pointSize() {
  const base = 15 - 2.6 * Math.log10(Math.max(10, data.count)) + 1.4;
  return Math.min(22, Math.max(2.5, base) * Math.max(1, camera.zoom) ** 0.3);
}

function resize() {
  const box = byId("map").getBoundingClientRect();
  const isWide = box.width > WIDE;
  const room = {
    width: Math.max(1, box.width),
    height: Math.max(1, box.height),
    left: isWide && byId("colors").open ? byId("colors").offsetWidth : 0,
    right: isWide ? byId("tools").offsetWidth : 0,
  };
  const density = Math.min(2, window.devicePixelRatio || 1);
  const isSame = Object.entries(room).every(([name, value]) => camera[name] === value);
  if (isSame && view.density === density) return;
  Object.assign(camera, room);
  view.density = density;
  for (const canvas of [byId("points"), byId("overlay")]) {
    canvas.width = Math.round(box.width * view.density);
    canvas.height = Math.round(box.height * view.density);
  }
  draw(); // at once: a canvas that changes its size is empty
}

// Writes what all points look like, in the order in which they are drawn.
function restyle() {
  const [total, style] = [data.count, styling()];
  const [levels, looks] = [new Uint8Array(total), new Uint32Array(total)];
  const isDark = document.documentElement.dataset.theme === "dark";
  const grey = isDark ? [120, 124, 134] : [130, 126, 118];
  const others = state.selected.size ? LEVELS.faint : LEVELS.plain;
  levels.fill(others);
  for (const row of state.selected) levels[row] = LEVELS.selected;
  for (let row = 0; row < total; row++) if (!state.fits[row]) levels[row] = LEVELS.unfit;
  order = orderOf(levels, [LEVELS.unfit, others, LEVELS.selected]);
  for (let i = 0; i < total; i++) {
    const level = levels[order[i]];
    const { rgb, shape } = style(order[i]);
    const [red, green, blue] = level === LEVELS.unfit ? grey : rgb;
    looks[i] = red | (green << 8) | (blue << 16) | ((shape + 8 * level) << 24);
  }
  points.setLooks(looks);
  setPlaces();
  redraw();
}

// Writes where all points are, on the map before and on this one.
function setPlaces() {
  const [before, after] = [data.maps[shownMap].places, currentMap().places];
  const places = new Uint16Array(4 * data.count);
  for (let i = 0; i < data.count; i++) {
    const row = order[i];
    places[4 * i] = before[2 * row];
    places[4 * i + 1] = before[2 * row + 1];
    places[4 * i + 2] = after[2 * row];
    places[4 * i + 3] = after[2 * row + 1];
  }
  points.setPlaces(places);
}

// Rows by level; within one, mixed, so that what comes late in the run does not cover the rest.
function orderOf(levels, fromBackToFront) {
  const found = new Uint32Array(data.count);
  const step = coprime(Math.floor(data.count * 0.618) || 1, data.count);
  let next = 0;
  for (const level of fromBackToFront) {
    for (let i = 0, row = 0; i < data.count; i++, row = (row + step) % data.count) {
      if (levels[row] === level) found[next++] = row;
    }
  }
  return found;
}

function coprime(start, total) {
  const divisor = (a, b) => (b ? divisor(b, a % b) : a);
  let step = start;
  while (divisor(step, total) !== 1) step++;
  return step;
}

function morph() {
  setPlaces();
  shownMap = state.map;
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return redraw();
  const start = performance.now();
  const step = (now) => {
    const share = Math.min(1, Math.max(0, now - start) / MORPH);
    view.blend = share * share * (3 - 2 * share);
    draw();
    if (share < 1) requestAnimationFrame(step);
  };
  view.blend = 0;
  requestAnimationFrame(step);
}

export function hitAt(left, top) {
  const [x, y] = toMap(left, top);
  return nearestPoint(currentMap(), x, y, REACH / pixels(), (row) => state.fits[row]);
}

// Moves the view so that a track is in it.
export function reveal(row) {
  const [x, y] = [xOf(currentMap(), row), yOf(currentMap(), row)];
  const [left, top] = toScreen(x, y);
  const isSeen =
    left > camera.left + EDGE &&
    top > EDGE &&
    left < camera.width - camera.right - EDGE &&
    top < camera.height - EDGE;
  if (!isSeen) Object.assign(camera, { x, y });
  redraw();
}

export function zoom(factor) {
  zoomAt(factor);
  moved();
}

export function panBy(right, down) {
  pan(right, down);
  moved();
}

export function showAll() {
  fit();
  moved();
}

export function moved() {
  hideTip();
  redraw();
  change({ view: true });
}

// The rows of tracks that fit and are in the view.
export function rowsInView() {
  const [left, bottom] = toMap(0, camera.height);
  const [right, top] = toMap(camera.width, 0);
  return rowsIn([
    [left, bottom],
    [right, bottom],
    [right, top],
    [left, top],
  ]);
}

// The rows of tracks that fit and lie in a polygon of the map.
export function rowsIn(polygon) {
  const [xs, ys] = [polygon.map(([x]) => x), polygon.map(([, y]) => y)];
  const found = [];
  const map = currentMap();
  const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  visitBox(map, ...box, (row) => {
    if (state.fits[row] && isInside(xOf(map, row), yOf(map, row), polygon)) found.push(row);
  });
  return found.sort((a, b) => a - b);
}

function isInside(x, y, polygon) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [[xi, yi], [xj, yj]] = [polygon[i], polygon[j]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}
