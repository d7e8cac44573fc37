// What is drawn over the points: names of groups and tracks, lines to neighbours, rings, the lasso.

import { camera, pixels, toMap, toScreen } from "./camera.js";
import { groupName, groupsOf } from "./colors.js";
import { data, MISSING, neighboursOf, titleOf } from "./data.js";
import { shown } from "./dom.js";
import { visitBox, xOf, yOf } from "./grid.js";
import { state } from "./state.js";

const MOST_NAMES = 400; // groups, beyond which none are named
const MOST_TITLES = 70; // tracks in view, up to which they are named
const ENOUGH = 2000; // tracks of a group whose median stands for all
const LINES = 10; // neighbours that lines lead to
const GAP = 18; // CSS pixels between names and what legend and tools cover
const GROUPS_ZOOM = 4; // from which names of groups fade

let labels = [];
let labelled; // the column that they are of

// Finds where the names of groups go on a map: at the medians of their tracks.
export function findLabels(map) {
  const chosen = data.columns[state.column];
  const column = chosen.kind === "category" ? chosen : data.clusterColumn;
  const { groups, groupOf } = groupsOf(column);
  labels = [];
  labelled = column;
  if (groups.length > MOST_NAMES) return;
  const members = groups.map(() => []);
  for (let row = 0; row < data.count; row++) members[groupOf[column.codes[row]]].push(row);
  labels = groups
    .map((group, i) => ({
      text: shown(groupName(column, group), 32),
      count: group.count,
      isMuted: group.muted,
      codes: group.values.map((value) => column.values.indexOf(value)),
      x: median(members[i], (row) => map.places[2 * row]),
      y: median(members[i], (row) => map.places[2 * row + 1]),
    }))
    .filter((label) => !label.isMuted)
    .sort((a, b) => b.count - a.count);
  countFitting();
}

// Finds which groups have tracks that fit: the others are not named.
export function countFitting() {
  const fitting = new Set();
  for (let row = 0; row < data.count; row++) if (state.fits[row]) fitting.add(labelled.codes[row]);
  for (const label of labels) label.isSeen = label.codes.some((code) => fitting.has(code));
}

function median(all, value) {
  const step = Math.ceil(all.length / ENOUGH);
  const rows = all.filter((_, i) => i % step === 0);
  const sorted = Uint16Array.from(rows, value).sort();
  return sorted[Math.floor(sorted.length / 2)] / MISSING;
}

export function drawOverlay(canvas, map, view) {
  const context = canvas.getContext("2d");
  const ink = getComputedStyle(canvas);
  const paints = {
    ink: ink.getPropertyValue("--ink"),
    paper: ink.getPropertyValue("--paper"),
    accent: ink.getPropertyValue("--accent"),
  };
  context.setTransform(view.density, 0, 0, view.density, 0, 0);
  context.clearRect(0, 0, camera.width, camera.height);
  if (view.blend === 1) {
    drawLines(context, map, paints);
    drawNames(context, map, paints);
  }
  const at = (row) => toScreen(xOf(map, row), yOf(map, row));
  if (state.playing >= 0) ring(context, at(state.playing), 12, paints.accent, 3);
  if (state.focus >= 0) ring(context, at(state.focus), 9, paints.ink, 2.5);
  if (view.hovered >= 0) ring(context, at(view.hovered), 8, paints.ink, 1.5);
  if (view.path.length) drawPath(context, view.path, paints);
}

function ring(context, [left, top], radius, color, width) {
  context.beginPath();
  context.arc(left, top, radius, 0, 2 * Math.PI);
  context.lineWidth = width;
  context.strokeStyle = color;
  context.stroke();
}

function drawLines(context, map, paints) {
  if (state.focus < 0) return;
  const from = toScreen(xOf(map, state.focus), yOf(map, state.focus));
  neighboursOf(state.focus)
    .slice(0, LINES)
    .forEach(({ row }, i) => {
      context.beginPath();
      context.moveTo(...from);
      context.lineTo(...toScreen(xOf(map, row), yOf(map, row)));
      context.globalAlpha = 0.85 - 0.06 * i;
      context.lineWidth = 1.6;
      context.strokeStyle = paints.accent;
      context.stroke();
    });
  context.globalAlpha = 1;
}

// Groups first, the largest first; then single tracks, where few are in view. None covers another.
function drawNames(context, map, paints) {
  const taken = [];
  const write = (text, middle, top, font, alpha) => {
    context.font = font;
    const wide = context.measureText(text).width;
    const left = besidesTools(middle, wide);
    const box = [left - wide / 2 - 4, top - 9, left + wide / 2 + 4, top + 9];
    const isFree = taken.every(
      (b) => box[2] < b[0] || box[0] > b[2] || box[3] < b[1] || box[1] > b[3],
    );
    if (!isFree) return;
    taken.push(box);
    context.globalAlpha = alpha;
    context.lineWidth = 4;
    context.strokeStyle = paints.paper;
    context.strokeText(text, left, top);
    context.fillStyle = paints.ink;
    context.fillText(text, left, top);
  };
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  const fade = Math.min(1, Math.max(0.35, GROUPS_ZOOM / camera.zoom));
  for (const { text, x, y } of labels.filter((label) => label.isSeen)) {
    const [left, top] = toScreen(x, y);
    if (left < -80 || top < -20 || left > camera.width + 80 || top > camera.height + 20) continue;
    write(text, left, top - 15, "600 13px system-ui, sans-serif", fade);
  }
  for (const row of fewInView(map)) {
    const [left, top] = toScreen(xOf(map, row), yOf(map, row));
    write(shown(titleOf(row), 28), left, top + 17, "12px system-ui, sans-serif", 0.9);
  }
  context.globalAlpha = 1;
}

// Where the middle of a name goes so that the legend and the tools do not cover its ends.
function besidesTools(middle, wide) {
  const room = wide / 2 + GAP;
  const [low, high] = [camera.left + room, camera.width - camera.right - room];
  const isBeside = middle > camera.left && middle < camera.width - camera.right && low < high;
  return isBeside ? Math.min(high, Math.max(low, middle)) : middle;
}

// The tracks in view that fit, if they are few enough to be named.
function fewInView(map) {
  const [left, bottom] = toMap(0, camera.height);
  const [right, top] = toMap(camera.width, 0);
  if (pixels() ** 2 < 9000 * Math.min(data.count, 2000)) return [];
  const rows = [];
  visitBox(map, left, bottom, right, top, (row) => {
    const [x, y] = [xOf(map, row), yOf(map, row)];
    if (state.fits[row] && x > left && x < right && y > bottom && y < top) rows.push(row);
    return rows.length > MOST_TITLES;
  });
  return rows.length > MOST_TITLES ? [] : rows;
}

function drawPath(context, path, paints) {
  context.beginPath();
  path.forEach(([left, top], i) => (i ? context.lineTo(left, top) : context.moveTo(left, top)));
  context.closePath();
  context.globalAlpha = 0.12;
  context.fillStyle = paints.accent;
  context.fill();
  context.globalAlpha = 1;
  context.setLineDash([5, 4]);
  context.lineWidth = 1.5;
  context.strokeStyle = paints.accent;
  context.stroke();
  context.setLineDash([]);
}
