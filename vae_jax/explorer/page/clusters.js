// The panel of clusters: names, sizes, reasons, typical tracks, and what lies between two of them. It
// also lists suspected duplicates.

import { clusterName, groupsOf } from "./colors.js";
import { clusterOf, data, number, secondOf, titleOf } from "./data.js";
import { byId, count, el, rounded, words } from "./dom.js";
import { saveNames } from "./exports.js";
import { isolate, isolated } from "./filters.js";
import { trackRow } from "./rows.js";
import { change, on, state } from "./state.js";
import { swatch } from "./swatch.js";

const MOST_BETWEEN = 30;
const MOST_TRACKS = 3; // of each kind in a cluster
const MOST_SAME = 100; // groups of suspected duplicates that are listed
const CENTRE = 0.35; // up to which a track counts as its own cluster's alone

export function startClusters() {
  byId("save-names").addEventListener("click", saveNames);
  for (const id of ["between-a", "between-b"]) byId(id).addEventListener("change", drawBetween);
  on(["theme", "filters", "arrived"], drawClusters);
  on(["names", "arrived"], () => {
    fillChoices();
    drawBetween();
  });
  drawClusters();
  fillChoices();
  byId("between").hidden = realCodes().length < 2;
  drawBetween();
  on(["names", "theme", "arrived"], drawSame);
  drawSame();
}

function realCodes() {
  const codes = data.clusterColumn.values.map((_, code) => code);
  return codes.filter((code) => data.clusterColumn.values[code] !== "-1");
}

function drawClusters() {
  const { groups } = groupsOf(data.clusterColumn);
  const most = Math.max(...groups.map((group) => group.count));
  byId("cluster-list").replaceChildren(...groups.map((group) => clusterItem(group, most)));
}

function clusterItem(group, most) {
  const value = group.values[0];
  const code = data.clusterColumn.values.indexOf(value);
  const isNoise = value === "-1";
  const size = el("meter", { min: 0, max: most, value: group.count });
  size.setAttribute("aria-hidden", "true");
  const name = el("input", {
    type: "text",
    maxlength: 80,
    "aria-label": `name of cluster ${value}`,
    placeholder: clusterName(code),
    value: state.names[value] ?? data.clusters.names[code],
    onchange: () => change({ names: { ...state.names, [value]: name.value.trim() } }),
  });
  const isAlone = isolated(data.clusterColumn).has(value);
  const alone = el(
    "button",
    {
      type: "button",
      "aria-pressed": String(isAlone),
      onclick: () => isolate(data.clusterColumn, group.values),
    },
    "Only this",
  );
  const select = el("button", { type: "button", onclick: () => selectCluster(code) }, "Select");
  const reasons = data.clusters.reasons[code].map((text) => el("li", {}, words(text, "", 300)));
  return el(
    "li",
    { class: "cluster" },
    el(
      "div",
      { class: "line" },
      swatch(group),
      isNoise ? el("strong", {}, "noise") : name,
      el("span", { class: "quiet" }, group.count.toLocaleString("en")),
    ),
    size,
    reasons.length ? el("ul", { class: "reasons" }, ...reasons) : null,
    tracks("typical", data.clusters.typical[code]),
    tracks("at its edge", data.clusters.edge[code]),
    el("div", { class: "actions" }, alone, select),
  );
}

// Some tracks of a cluster, under what they are.
function tracks(what, rows) {
  const links = rows.slice(0, MOST_TRACKS).map((row) => {
    const open = () => change({ focus: row, opened: true });
    const attributes = { type: "button", class: "link", onclick: open };
    return el("li", {}, el("button", attributes, words(titleOf(row), "", 60)));
  });
  if (!links.length) return null;
  return el("div", {}, el("p", { class: "quiet" }, what), el("ul", { class: "typical" }, ...links));
}

function selectCluster(code) {
  const found = new Set();
  for (let row = 0; row < data.count; row++) if (clusterOf(row) === code) found.add(row);
  change({ selected: found });
}

function fillChoices() {
  for (const [i, id] of ["between-a", "between-b"].entries()) {
    const chosen = byId(id).value;
    const codes = realCodes();
    const options = codes.map((code) =>
      el("option", { value: code }, words(clusterName(code), "", 40)),
    );
    byId(id).replaceChildren(...options);
    byId(id).value = chosen || codes[Math.min(i, codes.length - 1)];
  }
}

// Tracks of either cluster whose next one is the other, the most undecided first.
function drawBetween() {
  const column = data.columns.find((one) => one.name === "between" && one.kind === "number");
  const [a, b] = ["between-a", "between-b"].map((id) => Number(byId(id).value));
  const found = [];
  for (let row = 0; row < data.count; row++) {
    const [own, next] = [clusterOf(row), secondOf(row)];
    const isHere = (own === a && next === b) || (own === b && next === a);
    if (a !== b && isHere && number(column, row) > CENTRE) found.push(row);
  }
  found.sort((one, other) => number(column, other) - number(column, one));
  const items = found.slice(0, MOST_BETWEEN);
  const rows = items.map((row) => trackRow(row, rounded(number(column, row)), () => items));
  byId("between-list").replaceChildren(...rows);
  byId("between-count").textContent = found.length
    ? `${count(found.length, "track")}; .5 is in the middle`
    : "No track lies between these two.";
}

function drawSame() {
  const groups = data.same.slice(0, MOST_SAME);
  const rows = groups.flatMap(({ kind, rows }) =>
    rows.map((row, i) => trackRow(row, i ? "" : kind, () => rows)),
  );
  byId("same").hidden = !groups.length;
  byId("same-count").textContent = count(data.same.length, "group");
  byId("same-list").replaceChildren(...rows);
}
