// What stands beside the pointer: who is under it.

import { clusterName, clusterStyle } from "./colors.js";
import { artistOf, cell, clusterOf, data, number, titleOf } from "./data.js";
import { byId, el, rounded, words } from "./dom.js";
import { on, state } from "./state.js";
import { swatch } from "./swatch.js";

let last = [];

export function startTip() {
  on(["arrived"], () => byId("tip").hidden || showTip(...last));
}

export function showTip(row, left, top) {
  last = [row, left, top];
  const tip = byId("tip");
  const column = data.columns[state.column];
  const lines = [el("strong", {}, words(titleOf(row), "", 90))];
  if (artistOf(row)) lines.push(el("span", {}, words(artistOf(row), "", 90)));
  const cluster = clusterOf(row);
  lines.push(
    el(
      "span",
      { class: "tip-cluster" },
      swatch(clusterStyle(cluster)),
      words(clusterName(cluster), "", 60),
    ),
  );
  if (column !== data.clusterColumn) {
    const value =
      column.kind === "number" ? rounded(number(column, row), column.whole) : cell(column, row);
    lines.push(
      el("span", { class: "quiet" }, words(`${column.name}: ${value || "not given"}`, "", 90)),
    );
  }
  tip.replaceChildren(...lines);
  tip.hidden = false;
  const map = byId("map").getBoundingClientRect();
  const right = left + 16 + tip.offsetWidth > map.width ? left - 16 - tip.offsetWidth : left + 16;
  tip.style.left = `${Math.max(4, right)}px`;
  tip.style.top = `${Math.max(4, Math.min(top + 12, map.height - tip.offsetHeight - 4))}px`;
}

export function hideTip() {
  if (!byId("tip").hidden) byId("tip").hidden = true;
}
