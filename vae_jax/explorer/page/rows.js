// A track as a row of a list: play it, or go to it.

import { clusterName, clusterStyle } from "./colors.js";
import { artistOf, clusterOf, data, titleOf } from "./data.js";
import { el, icon, shown, words } from "./dom.js";
import { play } from "./player.js";
import { change, state } from "./state.js";
import { swatch } from "./swatch.js";

// `note` stands at the end; `queue` is what plays on after the track.
export function trackRow(row, note, queue) {
  const cluster = clusterOf(row);
  const title = titleOf(row);
  const start = () => {
    play(row, queue?.());
    change({ focus: row });
  };
  const label = `play ${shown(title, 80)}`;
  const listen = data.audio
    ? el(
        "button",
        { type: "button", class: "plain", "aria-label": label, onclick: start },
        icon("play"),
      )
    : null;
  const under = [artistOf(row), clusterName(cluster)].filter(Boolean);
  const open = el(
    "button",
    { type: "button", class: "track", onclick: () => change({ focus: row, opened: true }) },
    swatch(clusterStyle(cluster)),
    el(
      "span",
      { class: "who" },
      words(title, "title", 90),
      el("span", { class: "quiet" }, ...joined(under.map((text) => words(text, "", 60)))),
    ),
    note ? el("span", { class: "note" }, note) : null,
  );
  const isHere = row === state.focus || row === state.playing;
  return el("li", { class: isHere ? "row here" : "row", "data-row": row }, listen, open);
}

function joined(parts) {
  return parts.flatMap((part, i) => (i ? [" · ", part] : [part]));
}
