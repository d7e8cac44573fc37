// Which tracks are in question: those that contain all words and meet all conditions.

import { clusterName } from "./colors.js";
import { find } from "./asked.js";
import { cell, data, number } from "./data.js";
import { byId, count, el, icon, words } from "./dom.js";
import { change, on, state } from "./state.js";

const SIGNS = {
  is: "is",
  not: "is not",
  has: "contains",
  from: "at least",
  to: "at most",
};
const SUGGESTED = 1000; // values that are offered

let texts; // what is searched, [N], made when it is first needed
let hits = null; // a bit for each track that contains the words, where the server searches

export function startFilters() {
  byId("search").addEventListener("input", () => change({ words: byId("search").value }));
  const searchable = data.columns.filter(({ kind }) => kind !== "text" || !data.asks);
  const options = searchable.map((column) =>
    el("option", { value: data.columns.indexOf(column) }, words(column.name, "", 40)),
  );
  byId("filter-column").append(...options);
  byId("filter-column").addEventListener("change", offer);
  byId("filter-form").addEventListener("submit", (event) => {
    event.preventDefault();
    addCondition();
  });
  on(["words"], data.asks ? look : apply);
  on(["filters"], apply);
  on(["filters", "names"], drawChips);
  offer();
  if (data.asks && state.words) look();
  apply();
  drawChips();
  if (!data.asks) (window.requestIdleCallback || setTimeout)(() => searched());
}

// The values of a column that are shown alone; none if all are shown.
export function isolated(column) {
  const found = state.filters.find(
    ({ sign, column: name }) => sign === "in" && name === column.name,
  );
  return new Set(found ? found.values : []);
}

// Shows some values of a column alone, beside those that are already; or no longer.
export function isolate(column, values) {
  const chosen = isolated(column);
  const isOn = values.every((value) => chosen.has(value));
  for (const value of values) isOn ? chosen.delete(value) : chosen.add(value);
  const others = state.filters.filter((one) => one.sign !== "in" || one.column !== column.name);
  const mine = { column: column.name, sign: "in", values: [...chosen] };
  change({ filters: chosen.size ? [...others, mine] : others });
}

function searched() {
  if (texts) return texts;
  const columns = data.columns.filter(({ kind }) => kind !== "number");
  texts = data.ids.map((id, row) =>
    folded([id, ...columns.map((column) => cell(column, row))].join("\n")),
  );
  return texts;
}

// Without case and accents, so that "Beyonce" finds Beyoncé.
function folded(text) {
  const lower = text.toLowerCase();
  return /^[\x00-\x7f]*$/.test(lower) ? lower : lower.normalize("NFKD").replace(/\p{M}/gu, "");
}

// Has the server search, and shows what it found unless other words are asked for by then.
async function look() {
  const { words } = state;
  const found = words.trim() ? await find(words) : null;
  if (words !== state.words) return;
  hits = found;
  apply();
}

function apply() {
  const fits = new Uint8Array(data.count).fill(1);
  const wanted = folded(state.words).split(/\s+/).filter(Boolean);
  if (hits) {
    for (let row = 0; row < data.count; row++) fits[row] = (hits[row >> 3] >> (7 - (row & 7))) & 1;
  } else if (wanted.length && !data.asks) {
    const all = searched();
    for (let row = 0; row < data.count; row++) {
      if (!wanted.every((word) => all[row].includes(word))) fits[row] = 0;
    }
  }
  for (const filter of state.filters) {
    const meets = condition(filter);
    for (let row = 0; row < data.count; row++) if (fits[row] && !meets(row)) fits[row] = 0;
  }
  const fitting = fits.reduce((sum, one) => sum + one, 0);
  const isAll = fitting === data.count;
  const sample = data.total > data.count ? ` (a sample of ${data.total.toLocaleString("en")})` : "";
  byId("fitting").textContent = isAll
    ? count(data.count, "track") + sample
    : `${fitting.toLocaleString("en")} of ${count(data.count, "track")}`;
  change({ fits, fitting });
}

function condition({ column: name, sign, value, values }) {
  const column = data.columns.find((one) => one.name === name);
  if (!column) return () => true;
  if (sign === "in") {
    const wanted = new Set(values);
    return (row) => wanted.has(cell(column, row));
  }
  if (sign === "from" || sign === "to") {
    const limit = Number(value);
    const of = column.kind === "number" ? number : (_, row) => Number(cell(column, row) || NaN);
    return sign === "from" ? (row) => of(column, row) >= limit : (row) => of(column, row) <= limit;
  }
  const wanted = folded(value);
  if (sign === "has") return (row) => folded(cell(column, row)).includes(wanted);
  return (row) => (folded(cell(column, row)) === wanted) === (sign === "is");
}

// Fits the form to the column: its signs, and its values to choose from.
function offer() {
  const column = data.columns[byId("filter-column").value];
  const signs = column.kind === "number" ? ["from", "to"] : ["is", "not", "has", "from", "to"];
  byId("filter-sign").replaceChildren(
    ...signs.map((sign) => el("option", { value: sign }, SIGNS[sign])),
  );
  const values = column.kind === "category" ? column.values.slice(0, SUGGESTED) : [];
  const options = values.map((value) => el("option", { value: value.slice(0, 200) }));
  byId("filter-values").replaceChildren(...options);
  byId("filter-value").value = "";
}

function addCondition() {
  const column = data.columns[byId("filter-column").value].name;
  const [sign, value] = [byId("filter-sign").value, byId("filter-value").value.trim()];
  const isNumber = sign === "from" || sign === "to";
  const isWrong = isNumber && (value === "" || Number.isNaN(Number(value)));
  byId("filter-value").setCustomValidity(isWrong ? "Give a number." : "");
  if (!byId("filter-value").reportValidity()) return;
  change({ filters: [...state.filters, { column, sign, value }] });
  byId("filter-value").value = "";
}

function drawChips() {
  const chips = state.filters.map((filter) => {
    const remove = () => change({ filters: state.filters.filter((one) => one !== filter) });
    const text = described(filter);
    const label = `remove the condition ${text}`;
    const button = el(
      "button",
      { type: "button", class: "plain", "aria-label": label, onclick: remove },
      icon("close"),
    );
    return el("li", { class: "chip" }, words(text, "", 60), button);
  });
  byId("chips").replaceChildren(...chips);
}

function described({ column, sign, value, values }) {
  if (sign !== "in") return `${column} ${SIGNS[sign]} ${value || "empty"}`;
  const isCluster = column === data.clusterColumn.name;
  const name = (one) =>
    isCluster ? clusterName(data.clusterColumn.values.indexOf(one)) : one || "not given";
  const few = values.slice(0, 3).map(name).join(", ");
  const more = values.length > 3 ? ` and ${values.length - 3} more` : "";
  return isCluster ? few + more : `${column}: ${few}${more}`;
}
