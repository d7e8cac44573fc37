// The list: the tracks that are selected, or else all that fit. Only the rows in sight are made.

import { artistOf, data, number, titleOf } from "./data.js";
import { byId, count, el, rounded } from "./dom.js";
import { copyIds, saveCsv, savePlaylist } from "./exports.js";
import { rowsInView } from "./map.js";
import { play } from "./player.js";
import { trackRow } from "./rows.js";
import { change, on, state } from "./state.js";
import { showTab } from "./tabs.js";

const HIGH = 52; // CSS pixels of a row, as in style.css

const orders = new Map();
let isStale = true;
let rows = [];

export function startList() {
  byId("order").append(
    el("option", { value: "name" }, "by name"),
    el("option", { value: "marks" }, "marked first"),
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
  act("save-m3u", savePlaylist);
  act("save-csv", saveCsv);
  act("copy-ids", copyIds);
  byId("select-view").addEventListener("click", () => change({ selected: new Set(rowsInView()) }));
  byId("select-none").addEventListener("click", () => change({ selected: new Set() }));
  on(["fits", "selected", "marks"], refreshIfSeen);
  on(["focus", "playing", "names", "theme"], drawRows);
  on(["selected"], () => state.selected.size && showTab("list"));
  on(["words"], () => state.words && showTab("list"));
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
    const all = Array.from(data.ids.keys());
    return [...all.filter(isMarked), ...all.filter((row) => !isMarked(row))];
  }
  if (!orders.has(order))
    orders.set(order, order === "name" ? byName() : byColumn(data.columns[order]));
  return orders.get(order);
}

function byName() {
  const names = data.ids.map((_, row) => `${artistOf(row)}\u0000${titleOf(row)}`.toLowerCase());
  const compare = (a, b) => (names[a] < names[b] ? -1 : names[a] > names[b] ? 1 : a - b);
  return Array.from(data.ids.keys()).sort(compare);
}

function byColumn(column) {
  const value = (row) => number(column, row) || 0;
  return Array.from(data.ids.keys()).sort((a, b) => value(b) - value(a) || a - b);
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
