// The panel of one track: what is known of it, and its true neighbours.

import { clusterName, clusterStyle } from "./colors.js";
import {
  artistOf,
  cell,
  clusterOf,
  data,
  faithfulAt,
  idOf,
  known,
  neighboursOf,
  secondOf,
  titleOf,
} from "./data.js";
import { announce, byId, count, el, icon, shown, words } from "./dom.js";
import { reveal } from "./map.js";
import { play } from "./player.js";
import { trackRow } from "./rows.js";
import { change, on, state } from "./state.js";
import { swatch } from "./swatch.js";
import { showTab } from "./tabs.js";

let onlyElsewhere = false;

export function startTrack() {
  on(["focus", "names", "marks", "map", "theme", "playing", "arrived"], drawTrack);
  on(["opened"], () => showTab("track"));
  on(["focus"], () => {
    if (state.focus < 0) return;
    reveal(state.focus);
    sayFocus(state.focus);
  });
  drawTrack();
}

async function sayFocus(row) {
  await known([row]);
  const [title, artist] = [shown(titleOf(row)), shown(artistOf(row))];
  announce(`${title}${artist ? ` by ${artist}` : ""}, ${shown(clusterName(clusterOf(row)))}`);
}

function drawTrack() {
  const row = state.focus;
  const content =
    row < 0
      ? welcome()
      : [head(row), actions(row), trust(row), ...same(row), ...similar(row), facts(row)];
  byId("track").replaceChildren(...content);
}

function welcome() {
  const listen = data.audio ? "click one to hear it" : "click one to see its neighbours";
  return [
    el("h2", {}, "Every point is a track"),
    el(
      "p",
      {},
      `Points near each other sound alike, as far as a flat map can show that: ${listen}.`,
    ),
    el(
      "p",
      { class: "quiet" },
      "Drag to move, scroll to zoom, Shift and drag to select. ? lists the keys.",
    ),
  ];
}

function head(row) {
  const cluster = clusterOf(row);
  return el(
    "header",
    { class: "track-head" },
    el("h2", {}, words(titleOf(row), "", 200)),
    artistOf(row) ? el("p", { class: "artist" }, words(artistOf(row), "", 200)) : null,
    el(
      "p",
      { class: "quiet" },
      swatch(clusterStyle(cluster)),
      " ",
      words(clusterName(cluster), "", 80),
    ),
  );
}

function actions(row) {
  const isMarked = state.marks.has(idOf(row));
  const near = () => [row, ...neighboursOf(row).map((one) => one.row)];
  const button = (text, act, sign, pressed) =>
    el(
      "button",
      { type: "button", onclick: act, "aria-pressed": pressed },
      sign ? icon(sign) : null,
      text,
    );
  return el(
    "div",
    { class: "actions" },
    data.audio ? button("Play", () => play(row, near()), "play") : null,
    button("Mark", () => toggleMark(row), "star", String(isMarked)),
    button("Select its neighbours", () => change({ selected: new Set(near()) })),
  );
}

export function toggleMark(row) {
  const marks = new Set(state.marks);
  const id = idOf(row);
  if (!marks.delete(id)) marks.add(id);
  change({ marks });
}

function trust(row) {
  const looked = data.looked_at;
  const percent = faithfulAt(state.map, row);
  if (percent === undefined)
    return el("p", { class: "quiet" }, "Its neighbours are on their way …");
  const hits = Math.round((percent / 100) * looked);
  const verdict =
    percent >= 70
      ? "The map can be trusted here"
      : percent >= 40
        ? "The map is about half right here"
        : "The map misleads here";
  const meter = el("meter", { min: 0, max: 100, low: 40, high: 70, optimum: 100, value: percent });
  meter.setAttribute("aria-label", "how faithful the map is at this track");
  const near = looked === 1 ? "its nearest is" : `${hits} of its ${looked} nearest are`;
  const text = `${verdict}: ${near} ${looked === 1 && !hits ? "not " : ""}near it there.`;
  return el(
    "p",
    { class: "trust" },
    meter,
    el("span", {}, looked ? text : "There is no other track."),
  );
}

function same(row) {
  const group = data.sameAs.get(row);
  if (!group) return [];
  const others = group.rows.filter((one) => one !== row);
  const items = others.map((one) => trackRow(one, group.kind));
  return [el("h3", {}, "Suspected duplicates"), el("ol", { class: "rows" }, ...items)];
}

function similar(row) {
  const others = neighboursOf(row);
  const elsewhere = others.filter((one) => clusterOf(one.row) !== clusterOf(row));
  const listed = onlyElsewhere ? elsewhere : others;
  const queue = () => listed.map((one) => one.row);
  const items = listed.map((one) => trackRow(one.row, one.distance.toPrecision(3), queue));
  const toggle = el("input", {
    type: "checkbox",
    checked: onlyElsewhere,
    onchange: () => {
      onlyElsewhere = !onlyElsewhere;
      drawTrack();
    },
  });
  const none = el("p", { class: "quiet" }, "None of its neighbours is in another cluster.");
  return [
    el(
      "div",
      { class: "line" },
      el("h3", {}, "Most alike"),
      el("label", {}, toggle, `only in other clusters (${elsewhere.length})`),
    ),
    items.length ? el("ol", { class: "rows", id: "neighbours" }, ...items) : none,
    el("p", { class: "quiet" }, "True distances in the latent space, not on the map."),
  ];
}

function facts(row) {
  const second = secondOf(row);
  const cells = data.columns
    .filter(
      (column) =>
        column !== data.titles && column !== data.artists && column !== data.clusterColumn,
    )
    .map((column) => [column.name, cell(column, row)]);
  const next = second < 0 ? [] : [["next cluster", clusterName(second)]];
  const rows = [["id", idOf(row)], ...next, ...cells].filter(([, value]) => value !== "");
  const terms = rows.flatMap(([name, value]) => [
    el("dt", {}, words(name, "", 40)),
    el("dd", {}, words(value, "", 400)),
  ]);
  return el(
    "details",
    { open: true },
    el("summary", {}, `What is known (${count(rows.length, "entry", "entries")})`),
    el("dl", {}, ...terms),
  );
}
