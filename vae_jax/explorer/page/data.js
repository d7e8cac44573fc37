// The run's data, as `vae_jax/explorer/packing.py` packs them.

import { aboutOf, bring, bringData, nearOf } from "./asked.js";

export const MISSING = 65535;
export const data = { count: 0 };

const LARGEST_RATIO = 1000; // as in data.py

const KINDS = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array };

export async function load(packed) {
  const bytes = await unpack(packed);
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const text = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const arrays = {};
  let start = 4 + length;
  for (const [name, { type, shape }] of Object.entries(text.arrays)) {
    const size = shape.reduce((product, side) => product * side, 1);
    arrays[name] = joined(bytes, start, size, KINDS[type]);
    start += size * KINDS[type].BYTES_PER_ELEMENT;
  }
  Object.assign(data, text);
  for (const map of data.maps) {
    map.places = arrays[map.places];
    if (!data.asks) map.faithful = arrays[map.faithful];
  }
  for (const column of data.columns) {
    if (column.kind === "category") column.codes = arrays[column.codes];
    if (column.kind === "number") column.steps = arrays[column.steps];
  }
  if (data.asks) data.audio = arrays[data.audible];
  else readWhole(text, arrays);
  data.clusters.second = arrays[data.clusters.second];
  data.clusterColumn = data.columns[0];
  const named = (name) => data.columns.find((column) => column.name.toLowerCase() === name);
  data.titles = named("title");
  data.artists = named("artist");
  data.sameAs = new Map(data.same.flatMap((group) => group.rows.map((row) => [row, group])));
}

// Reads what a page has that need not ask.
function readWhole(text, arrays) {
  const { order, steps, ends, farther } = data.neighbours;
  data.near = {
    order: arrays[order],
    steps: arrays[steps],
    ends: arrays[ends],
    farther: arrays[farther],
    each: text.arrays[steps].shape[1],
    position: new Uint32Array(data.count),
  };
  data.near.order.forEach((row, i) => (data.near.position[row] = i));
  data.rows = new Map(data.ids.map((id, row) => [id, row]));
}

async function unpack(packed) {
  const stream = packed.trim() ? held(packed) : await bringData();
  const unpacked = stream.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

function held(packed) {
  return new Blob([Uint8Array.fromBase64?.(packed) ?? fromBase64(packed.trim())]).stream();
}

// What newer browsers do themselves, five times as fast.
function fromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function joined(bytes, start, size, Kind) {
  const array = new Kind(size);
  for (let plane = 0; plane < Kind.BYTES_PER_ELEMENT; plane++) {
    const factor = 2 ** (8 * plane);
    const from = start + plane * size;
    for (let i = 0; i < size; i++) array[i] += bytes[from + i] * factor;
  }
  return array;
}

// A number of a scale; NaN where it is missing.
export function number(column, row) {
  const step = column.steps[row];
  return step === MISSING ? NaN : column.low + (step / (MISSING - 1)) * (column.high - column.low);
}

// A cell as text, as exact as the page holds it.
export function cell(column, row) {
  if (column.kind === "text" && data.asks) return aboutOf(row)?.cells[column.name] ?? "";
  if (column.kind === "text") return column.values[row];
  if (column.kind === "category") return column.values[column.codes[row]];
  const value = number(column, row);
  if (Number.isNaN(value)) return "";
  return String(column.whole ? Math.round(value) : Number(value.toPrecision(4)));
}

export function idOf(row) {
  return data.asks ? (aboutOf(row)?.id ?? "") : data.ids[row];
}

export function titleOf(row) {
  return (data.titles && cell(data.titles, row)) || idOf(row) || "…";
}

// Waits until the texts of tracks are here.
export async function known(rows) {
  if (data.asks) await bring(rows);
}

export function artistOf(row) {
  return data.artists ? cell(data.artists, row) : "";
}

// The true neighbours of a track, the nearest first; `_neighbours` in data.py says how they are kept.
export function neighboursOf(row) {
  if (data.asks) {
    const { rows, distances } = nearOf(row) ?? { rows: [] };
    return rows.map((other, i) => ({ row: other, distance: distances[i] }));
  }
  const { order, steps, ends, farther, each, position } = data.near;
  const unit = data.neighbours.high / (MISSING - 1);
  const [first, last] = [unit * ends[2 * row], unit * ends[2 * row + 1]];
  const least = Math.max(first, last / LARGEST_RATIO);
  let part = 0;
  return Array.from({ length: each }, (_, i) => {
    const step = steps[row * each + i];
    part += farther[i * data.count + row];
    return {
      row: order[position[row] + (step % 2 ? -(step + 1) / 2 : step / 2)],
      distance: part ? least * (last / least) ** (part / 255) : first,
    };
  });
}

// How faithful a map is at a track, in percent; undefined as long as that is on its way.
export function faithfulAt(number, row) {
  return data.asks ? nearOf(row)?.faithful[number] : data.maps[number].faithful[row];
}

export function clusterOf(row) {
  return data.clusterColumn.codes[row];
}

// The cluster whose centre is the nearest of the others; -1 where there is no other.
export function secondOf(row) {
  return data.clusters.second[row] - 1;
}
