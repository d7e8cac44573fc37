// What the colours mean. A click on a group shows it alone; more clicks add others.

import { groupName, groupsOf, scaleColor } from "./colors.js";
import { data } from "./data.js";
import { byId, el, rounded, words } from "./dom.js";
import { isolated, isolate } from "./filters.js";
import { change, on, state } from "./state.js";
import { swatch } from "./swatch.js";

const MOST = 300; // groups that are listed
const BARS = 40; // of the histogram

export function startLegend() {
  const choice = byId("column");
  for (const [i, column] of data.columns.entries()) {
    if (column.kind !== "text")
      choice.append(el("option", { value: i }, words(column.name, "", 40)));
  }
  choice.addEventListener("change", () => change({ column: Number(choice.value) }));
  on(["column", "theme", "names", "filters"], drawLegend);
  drawLegend();
}

function drawLegend() {
  const column = data.columns[state.column];
  byId("column").value = state.column;
  byId("legend").replaceChildren(...(column.kind === "number" ? scale(column) : groupList(column)));
}

function groupList(column) {
  const { groups } = groupsOf(column);
  const chosen = isolated(column);
  const items = groups.slice(0, MOST).map((group) => {
    const isOn = group.values.every((value) => chosen.has(value));
    const button = el(
      "button",
      {
        type: "button",
        class: "group",
        "aria-pressed": String(isOn),
        onclick: () => isolate(column, group.values),
      },
      swatch(group),
      words(groupName(column, group), "name", 60),
      el("span", { class: "quiet" }, group.count.toLocaleString("en")),
    );
    return el("li", { class: chosen.size && !isOn ? "off" : false }, button);
  });
  const list = el("ul", { class: "groups" }, ...items);
  const rest = groups.length - MOST;
  return rest > 0 ? [list, el("p", { class: "quiet" }, `and ${rest} more`)] : [list];
}

function scale(column) {
  const counts = new Array(BARS).fill(0);
  let missing = 0;
  for (const step of column.steps) {
    if (step === 65535) missing++;
    else counts[Math.min(BARS - 1, Math.floor((step / 65535) * BARS))]++;
  }
  const most = Math.max(...counts, 1);
  const canvas = el("canvas", { width: 2 * 200, height: 2 * 56, class: "scale", role: "img" });
  const range = `${rounded(column.low, column.whole)} to ${rounded(column.high, column.whole)}`;
  canvas.setAttribute("aria-label", `colours from ${range}`);
  const context = canvas.getContext("2d");
  counts.forEach((number, i) => {
    context.fillStyle = scaleColor(i / (BARS - 1));
    const high = number ? Math.max(3, (80 * number) / most) : 0;
    context.fillRect((i * 400) / BARS, 88 - high, 400 / BARS - 1, high);
    context.fillRect((i * 400) / BARS, 94, 400 / BARS, 18);
  });
  const ends = el(
    "div",
    { class: "ends" },
    el("span", {}, rounded(column.low, column.whole)),
    el("span", {}, rounded(column.high, column.whole)),
  );
  const notes = [column.about, missing ? `${missing.toLocaleString("en")} not given` : ""];
  const lines = notes.filter(Boolean).map((note) => el("p", { class: "quiet" }, note));
  return [canvas, ends, ...lines];
}
