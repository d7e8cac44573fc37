// The address holds the view, behind #, so that it can be kept and shared.

import { camera } from "./camera.js";
import { data } from "./data.js";
import { on, state } from "./state.js";

const MOST_VALUES = 50; // of an isolated group that the address can hold
const WAIT = 250; // ms; browsers refuse addresses that change too often

export function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const position = (list, name) => list.findIndex((one) => one.name === name);
  const map = position(data.maps, given.get("map"));
  if (map >= 0) state.map = map;
  const column = position(data.columns, given.get("color"));
  if (column >= 0 && data.columns[column].kind !== "text") state.column = column;
  state.words = given.get("search") || "";
  state.filters = filtersIn(given.get("filters"));
  const row = data.asks
    ? Number(given.get("row") ?? -1)
    : (data.rows.get(given.get("track")) ?? -1);
  if (row in data.clusterColumn.codes) state.focus = row;
  const [x, y, zoom] = (given.get("view") || "").split(",").map(Number);
  if ([x, y, zoom].every(Number.isFinite) && zoom > 0) Object.assign(camera, { x, y, zoom });
}

function filtersIn(text) {
  try {
    const found = JSON.parse(text || "[]");
    return found.filter(
      ({ column, sign, value, values }) =>
        typeof column === "string" &&
        (sign === "in"
          ? values.every((one) => typeof one === "string")
          : typeof value === "string"),
    );
  } catch {
    return [];
  }
}

export function watchAddress() {
  let timer = 0;
  on(["map", "column", "words", "filters", "focus", "view"], () => {
    clearTimeout(timer);
    timer = setTimeout(write, WAIT);
  });
}

function write() {
  const parts = new URLSearchParams();
  if (state.map) parts.set("map", data.maps[state.map].name);
  if (state.column) parts.set("color", data.columns[state.column].name);
  if (state.words) parts.set("search", state.words);
  const filters = state.filters.filter(({ values }) => !values || values.length <= MOST_VALUES);
  if (filters.length) parts.set("filters", JSON.stringify(filters));
  if (state.focus >= 0 && data.asks) parts.set("row", state.focus);
  if (state.focus >= 0 && !data.asks) parts.set("track", data.ids[state.focus]);
  const { x, y, zoom } = camera;
  if (x !== 0.5 || y !== 0.5 || zoom !== 1) {
    parts.set("view", [x, y, zoom].map((number) => Number(number.toPrecision(5))).join());
  }
  try {
    history.replaceState(null, "", `#${parts}`);
  } catch {
    // a page inside another one has no address of its own
  }
}
