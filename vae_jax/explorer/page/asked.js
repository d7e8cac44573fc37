// What a page asks its server that is of too many tracks to hold all: texts of the tracks that it
// lists, neighbours, and which tracks contain words. What comes late is announced as `arrived`.

import { announce } from "./dom.js";
import { change } from "./state.js";

const WAIT = 20; // ms in which questions gather
const MOST = 2000; // tracks of one question

const known = new Map(); // of rows: { id, cells }
const near = new Map(); // of rows: { rows, distances, faithful }
const wanted = new Set(); // rows whose texts are asked for
let timer = 0; // until they are asked for
let last = Promise.resolve(); // the last question

// What is known of a track; undefined as long as it is on its way.
export function aboutOf(row) {
  if (!known.has(row) && !wanted.has(row)) {
    wanted.add(row);
    if (!timer) timer = setTimeout(bringWanted, WAIT);
  }
  return known.get(row);
}

// A track's neighbours, in the same way.
export function nearOf(row) {
  if (!near.has(row)) bringNear(row);
  return near.get(row);
}

function bringWanted() {
  timer = 0;
  bring([...wanted]);
}

// Brings the texts of tracks, after those that are on their way.
export function bring(rows) {
  last = last.then(() => bringNow(rows.filter((row) => !known.has(row))));
  return last;
}

async function bringNow(missing) {
  for (let start = 0; start < missing.length; start += MOST) {
    const part = missing.slice(start, start + MOST);
    const answer = await ask("about", { rows: part.join() });
    if (!answer) return;
    for (const [row, about] of Object.entries(await answer.json())) known.set(Number(row), about);
    for (const row of part) wanted.delete(row);
  }
  if (missing.length) change({ arrived: true });
}

export async function bringNear(row) {
  if (near.has(row)) return;
  near.set(row, undefined);
  const answer = await ask(`near/${row}`);
  if (!answer) return near.delete(row);
  near.set(row, await answer.json());
  change({ arrived: true });
}

// Brings what the page holds, where it does not stand in the page itself.
export async function bringData() {
  const answer = await ask("data");
  if (!answer) throw new Error("the server does not answer");
  return answer.body;
}

// Returns a bit for each track: whether it contains all words.
export async function find(words) {
  const answer = await ask("find", { words });
  return new Uint8Array(answer ? await answer.arrayBuffer() : 0);
}

async function ask(path, question = {}) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(question)) query.set(name, value);
  try {
    const answer = await fetch(`${path}?${query}`);
    if (answer.ok) return answer;
  } catch {
    // the server has ended
  }
  announce("The server does not answer.");
  return null;
}
