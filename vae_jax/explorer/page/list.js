// The list: the tracks that are selected, or else all that fit. Only the rows in sight are made.

import { artistOf, data, known, number, titleOf } from "./data.js";
import { announce, byId, count, el, rounded } from "./dom.js";
import { copyIds, saveCsv, savePlaylist } from "./exports.js";
import { rowsInView } from "./map.js";
import { play } from "./player.js";
import { trackRow } from "./rows.js";
import { change, on, state } from "./state.js";
import { showTab } from "./tabs.js";

const HIGH = 52; // CSS pixels of a row, as in style.css

const MOST_SAVED = 100_000; // tracks whose texts are asked for to be saved
const BY_TEXT = [
  ["name", "by name"],
  ["marks", "marked first"],
];
const AS_LISTED = [["listed", "as listed"]];

const orders = new Map();
let isStale = true;
let rows = [];

export function startList() {
  byId("order").append(
    ...(data.asks ? AS_LISTED : BY_TEXT).map(([value, text]) => el("option", { value }, text)),
    ...data.columns.flatMap((column, i) =>
      column.kind === "number"
        ? [el("option", { value: i }, `by ${column.name.slice(0, 40)}`)]
        : [],
    ),
  );
  byId("order").addEventListener("change", refresh);
  byId("rows").addEventListener("scroll", drawRows);
  byId("list").addEventListener("shown", () => (isStale ? refresh() : drawRows()));
  new ResizeObserver(drawRows).observe(byId("rows"));
  const act = (id, run) => byId(id).addEventListener("click", () => run(listed()));
  act("queue", (list) => list.length && play(list[0], list));
  act("save-m3u", saving(savePlaylist));
  act("save-csv", saving(saveCsv));
  act("copy-ids", saving(copyIds));
  byId("select-view").addEventListener("click", () => change({ selected: new Set(rowsInView()) }));
  byId("select-none").addEventListener("click", () => change({ selected: new Set() }));
  on(["fits", "selected", "marks"], refreshIfSeen);
  on(["focus", "playing", "names", "theme", "arrived"], drawRows);
  on(["selected"], () => state.selected.size && showTab("list"));
  on(["words"], () => state.words && showTab("list"));
}

// Saves once all that is saved is here.
function saving(save) {
  return async (list) => {
    if (data.asks && list.length > MOST_SAVED) {
      return announce(`Select ${count(MOST_SAVED, "track")} at most to save them.`);
    }
    await known(list);
    save(list);
  };
}

// The rows in question, in order.
export function listed() {
  if (isStale) refresh();
  return rows;
}

// Lists anew what is seen; while nobody looks, that can wait.
function refreshIfSeen() {
  isStale = byId("list").hidden;
  if (!isStale) refresh();
}

function refresh() {
  isStale = false;
  const isSelection = state.selected.size > 0;
  rows = inOrder().filter((row) => state.fits[row] && (!isSelection || state.selected.has(row)));
  byId("list-title").textContent = isSelection
    ? `${count(rows.length, "track")} selected`
    : `All that fit: ${count(rows.length, "track")}`;
  byId("queue").hidden = !data.audio;
  byId("save-m3u").hidden = !data.audio;
  byId("select-none").hidden = !isSelection;
  drawRows();
}

// All rows in the order that is chosen; sorted once.
function inOrder() {
  const order = byId("order").value;
  if (order === "marks") {
    const isMarked = (row) => state.marks.has(data.ids[row]);
    const all = everyRow();
    return [...all.filter(isMarked), ...all.filter((row) => !isMarked(row))];
  }
  if (order === "listed") return everyRow();
  if (!orders.has(order))
    orders.set(order, order === "name" ? byName() : byColumn(data.columns[order]));
  return orders.get(order);
}

function everyRow() {
  return Array.from({ length: data.count }, (_, row) => row);
}

function byName() {
  const names = data.ids.map((_, row) => `${artistOf(row)}\u0000${titleOf(row)}`.toLowerCase());
  const compare = (a, b) => (names[a] < names[b] ? -1 : names[a] > names[b] ? 1 : a - b);
  return everyRow().sort(compare);
}

function byColumn(column) {
  const value = (row) => number(column, row) || 0;
  return everyRow().sort((a, b) => value(b) - value(a) || a - b);
}

function drawRows() {
  const box = byId("rows");
  if (byId("list").hidden) return;
  const first = Math.max(0, Math.floor(box.scrollTop / HIGH) - 4);
  const last = Math.min(rows.length, first + Math.ceil((box.clientHeight || 400) / HIGH) + 9);
  const column = data.columns[byId("order").value];
  const note = (row) => (column ? rounded(number(column, row), column.whole) : "");
  const items = rows.slice(first, last).map((row) => trackRow(row, note(row), () => rows));
  const list = byId("rows-list");
  const focused = list.contains(document.activeElement) && document.activeElement.closest("li");
  const kept = focused && { row: focused.dataset.row, name: document.activeElement.className };
  list.replaceChildren(...items);
  list.style.paddingTop = `${first * HIGH}px`;
  list.style.height = `${rows.length * HIGH}px`;
  if (kept) list.querySelector(`li[data-row="${kept.row}"] .${kept.name}`)?.focus();
}
