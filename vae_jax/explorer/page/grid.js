// Finds the points near a place, by a grid over the map.

import { data, MISSING } from "./data.js";

const cache = new Map();

export function xOf(map, row) {
  return map.places[2 * row] / MISSING;
}

export function yOf(map, row) {
  return map.places[2 * row + 1] / MISSING;
}

function gridOf(map) {
  if (cache.has(map)) return cache.get(map);
  const side = Math.min(512, Math.max(1, Math.ceil(Math.sqrt(data.count / 2))));
  const cells = new Uint32Array(data.count);
  const starts = new Uint32Array(side * side + 1);
  for (let row = 0; row < data.count; row++) {
    cells[row] = cellOf(xOf(map, row), side) + side * cellOf(yOf(map, row), side);
    starts[cells[row] + 1]++;
  }
  for (let i = 0; i < side * side; i++) starts[i + 1] += starts[i];
  const next = starts.slice();
  const rows = new Uint32Array(data.count);
  for (let row = 0; row < data.count; row++) rows[next[cells[row]]++] = row;
  cache.set(map, { side, starts, rows });
  return cache.get(map);
}

function cellOf(value, side) {
  return Math.min(side - 1, Math.max(0, Math.floor(value * side)));
}

// Calls `visit(row)` for at least all points in a box, until it returns true.
export function visitBox(map, left, bottom, right, top, visit) {
  const { side, starts, rows } = gridOf(map);
  const [first, last] = [cellOf(left, side), cellOf(right, side)];
  for (let j = cellOf(bottom, side); j <= cellOf(top, side); j++) {
    for (let i = starts[first + side * j]; i < starts[last + side * j + 1]; i++) {
      if (visit(rows[i])) return;
    }
  }
}

// The nearest point within `reach` that `counts`; -1 if there is none.
export function nearestPoint(map, x, y, reach, counts) {
  let [best, least] = [-1, reach * reach];
  visitBox(map, x - reach, y - reach, x + reach, y + reach, (row) => {
    const distance = (xOf(map, row) - x) ** 2 + (yOf(map, row) - y) ** 2;
    if (distance < least && counts(row)) [best, least] = [row, distance];
  });
  return best;
}
