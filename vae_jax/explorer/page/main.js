// Starts the page.

import { readAddress, watchAddress } from "./address.js";
import { startClusters } from "./clusters.js";
import { data, load } from "./data.js";
import { byId, count, el, words } from "./dom.js";
import { savePicture } from "./exports.js";
import { startFilters } from "./filters.js";
import { startKeys } from "./keys.js";
import { startLegend } from "./legend.js";
import { startList } from "./list.js";
import { redraw, showAll, startMap, zoom } from "./map.js";
import { play, startPlayer } from "./player.js";
import { watchPointers } from "./pointers.js";
import { change, on, state } from "./state.js";
import { restore } from "./storage.js";
import { showTab, startTabs } from "./tabs.js";
import { startTrack } from "./track.js";

async function start() {
  await load(byId("data").textContent);
  byId("data").remove();
  restore();
  readAddress();
  byId("colors").open = innerWidth > 760;
  startPlayer();
  startFilters();
  startMap();
  watchPointers();
  startTabs();
  startLegend();
  startList();
  startClusters();
  startTrack();
  startHeader();
  startKeys();
  watchAddress();
  showTab("track");
  on(["chosen"], (part) => data.audio && play(part.chosen));
  document.documentElement.dataset.ready = "yes";
}

function startHeader() {
  byId("run").textContent = data.title;
  byId("search").value = state.words;
  byId("elsewhere").textContent = data.elsewhere;
  byId("elsewhere").hidden = !data.elsewhere;
  const choice = byId("maps");
  choice.append(...data.maps.map((map, i) => el("option", { value: i }, words(map.title))));
  choice.value = state.map;
  choice.addEventListener("change", () => change({ map: Number(choice.value) }));
  on(["map"], () => (choice.value = state.map));
  for (const name of ["move", "lasso", "box"]) {
    byId(`tool-${name}`).addEventListener("click", () => change({ tool: name }));
  }
  on(["tool"], showTool);
  showTool();
  byId("zoom-in").addEventListener("click", () => zoom(1.5));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  byId("zoom-fit").addEventListener("click", showAll);
  byId("save-png").addEventListener("click", savePicture);
  byId("theme").addEventListener("click", () => {
    const { dataset } = document.documentElement;
    dataset.theme = dataset.theme === "dark" ? "light" : "dark";
    change({ theme: dataset.theme });
  });
  byId("show-help").addEventListener("click", () => byId("help").showModal());
  byId("surface").setAttribute(
    "aria-label",
    `Map of ${count(data.count, "track")}. Arrow keys walk from track to track.`,
  );
  redraw();
}

function showTool() {
  for (const name of ["move", "lasso", "box"]) {
    byId(`tool-${name}`).setAttribute("aria-pressed", String(state.tool === name));
  }
  byId("surface").dataset.tool = state.tool;
}

start().catch((error) => {
  byId("track").replaceChildren(el("p", {}, `This page cannot be shown: ${error.message}`));
  throw error;
});
