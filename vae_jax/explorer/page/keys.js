// The keyboard: all that the pointer does.

import { bringNear } from "./asked.js";
import { data, neighboursOf } from "./data.js";
import { announce, byId } from "./dom.js";
import { savePicture } from "./exports.js";
import { listed } from "./list.js";
import { hitAt, panBy, rowsInView, showAll, zoom } from "./map.js";
import { centre } from "./camera.js";
import { pause, play, toggle } from "./player.js";
import { change, state } from "./state.js";
import { toggleMark } from "./track.js";

const STEP = 80; // CSS pixels

const way = []; // the tracks that were walked through

const KEYS = {
  ArrowRight: () => walk(),
  ArrowDown: () => walk(),
  ArrowLeft: () => back(),
  ArrowUp: () => back(),
  Enter: () => state.focus >= 0 && data.audio && play(state.focus),
  " ": () => toggle(),
  "+": () => zoom(1.4),
  "=": () => zoom(1.4),
  "-": () => zoom(1 / 1.4),
  0: () => showAll(),
  v: () => change({ selected: new Set(rowsInView()) }),
  m: () => state.focus >= 0 && toggleMark(state.focus),
  c: () => change({ map: (state.map + 1) % data.maps.length }),
  p: () => savePicture(),
  "/": () => byId("search").focus(),
  "?": () => byId("help").showModal(),
  Escape: () => leave(),
};

const MOVES = {
  ArrowRight: [-STEP, 0],
  ArrowLeft: [STEP, 0],
  ArrowDown: [0, -STEP],
  ArrowUp: [0, STEP],
};

export function startKeys() {
  document.addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    const isTyping = target.closest("input:not([type=checkbox]), select, textarea");
    if (isTyping) {
      if (key === "Escape") byId("surface").focus();
      return;
    }
    const isOnMap = target === byId("surface") || target === document.body;
    const isPressed = target.closest("button, [role=tab], summary, input");
    if (!isOnMap && (key.startsWith("Arrow") || (isPressed && (key === " " || key === "Enter"))))
      return;
    if (event.shiftKey && MOVES[key]) panBy(...MOVES[key]);
    else if (KEYS[key]) KEYS[key]();
    else return;
    event.preventDefault();
  });
}

// Goes to the nearest track that fits and that this walk has not met.
async function walk() {
  if (state.focus < 0) return begin();
  if (data.asks) await bringNear(state.focus);
  if (way.at(-1) !== state.focus) way.splice(0, way.length, state.focus);
  const next = neighboursOf(state.focus).find(({ row }) => state.fits[row] && !way.includes(row));
  if (!next) return announce("No neighbour is left on this walk.");
  way.push(next.row);
  go(next.row);
}

function back() {
  if (way.at(-1) !== state.focus || way.length < 2) return;
  way.pop();
  go(way.at(-1));
}

function begin() {
  const middle = hitAt(...centre());
  const rows = rowsInView();
  const first = middle >= 0 ? middle : (rows[0] ?? listed()[0]);
  if (first !== undefined) go(first);
}

function go(row) {
  change({ focus: row, opened: true });
  if (state.playing >= 0) play(row);
}

function leave() {
  pause();
  change({ focus: -1, selected: new Set() });
}
