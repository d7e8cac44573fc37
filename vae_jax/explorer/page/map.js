// The map: draws when something changed, and turns pointers into hovering, choosing and selecting.

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
import { hideTip, showTip, startTip } from "./tip.js";

const REACH = 14; // CSS pixels from which a point is hit
const MORPH = 600; // ms in which one map becomes another
const WIDE = 620; // CSS pixels of the map from which it is centred beside the legend
const EDGE = 16; // CSS pixels from the edge up to which a track counts as seen
const STILL = 4; // CSS pixels that a click may move

const view = { hovered: -1, blend: 1, path: [], isDirty: false, density: 1 };
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
  watchPointers();
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

function moved() {
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

function watchPointers() {
  const surface = byId("surface");
  const fingers = new Map();
  let [drag, pinch] = [null, 0];
  surface.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    surface.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    pinch = fingers.size === 2 ? spread(fingers) : 0;
    const tool = event.shiftKey && state.tool === "move" ? "box" : state.tool;
    drag = { tool, start: place(event), last: place(event), hasMoved: false, adds: event.ctrlKey };
    view.path = [];
    hideTip();
  });
  surface.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return hover(event);
    fingers.set(event.pointerId, place(event));
    if (fingers.size === 2) {
      const now = spread(fingers);
      zoomAt(now / pinch, ...middle(fingers));
      pinch = now;
      drag = null;
      return redraw();
    }
    if (drag) dragTo(drag, place(event));
  });
  const end = (event) => {
    fingers.delete(event.pointerId);
    if (drag && event.type === "pointerup") finish(drag, event);
    drag = null;
    view.path = [];
    redraw();
  };
  surface.addEventListener("pointerup", end);
  surface.addEventListener("pointercancel", end);
  surface.addEventListener("pointerleave", () => hoverOver(-1));
  surface.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const lines = event.deltaMode ? 30 : 1;
      zoomAt(Math.exp(-0.0016 * lines * event.deltaY), ...place(event));
      moved();
    },
    { passive: false },
  );
  surface.addEventListener("dblclick", (event) => {
    zoomAt(2, ...place(event));
    moved();
  });
}

function place(event) {
  const box = byId("map").getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function spread(fingers) {
  const [a, b] = [...fingers.values()];
  return Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1]));
}

function middle(fingers) {
  const [a, b] = [...fingers.values()];
  return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
}

function dragTo(drag, now) {
  const far = Math.hypot(now[0] - drag.start[0], now[1] - drag.start[1]);
  drag.hasMoved ||= far > STILL;
  if (!drag.hasMoved) return;
  if (drag.tool === "move") pan(now[0] - drag.last[0], now[1] - drag.last[1]);
  if (drag.tool === "lasso") view.path.push(...(view.path.length ? [] : [drag.start]), now);
  if (drag.tool === "box") view.path = corners(drag.start, now);
  drag.last = now;
  redraw();
}

function corners([left, top], [right, bottom]) {
  return [
    [left, top],
    [right, top],
    [right, bottom],
    [left, bottom],
  ];
}

function finish(drag, event) {
  if (!drag.hasMoved) {
    const row = hitAt(...place(event));
    if (row >= 0) change({ focus: row, opened: true, chosen: row });
    else change({ focus: -1, selected: new Set() });
  } else if (drag.tool === "move") {
    change({ view: true });
  } else {
    const found = rowsIn(view.path.map(([left, top]) => toMap(left, top)));
    change({ selected: new Set(drag.adds ? [...state.selected, ...found] : found), drawn: true });
  }
}

function hover(event) {
  if (event.pointerType === "touch") return;
  hoverOver(hitAt(...place(event)), place(event));
}

function hoverOver(row, at) {
  if (row >= 0) showTip(row, ...at);
  else hideTip();
  byId("surface").classList.toggle("hit", row >= 0);
  if (row === view.hovered) return;
  view.hovered = row;
  redraw();
}
