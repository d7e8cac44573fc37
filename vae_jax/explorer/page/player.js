// Plays tracks: one, or a queue. A preview starts in the middle, where music is typical of itself.

import { artistOf, data, idOf, titleOf } from "./data.js";
import { announce, byId, count, icon, shown } from "./dom.js";
import { change, on, state } from "./state.js";

const audio = new Audio();
let queue = [];
let embedded = null; // previews inside the page: an object URL for each row, made when needed

export function startPlayer() {
  audio.preload = "none";
  byId("play").append(icon("play"));
  byId("previous").append(icon("previous"));
  byId("next").append(icon("next"));
  byId("play").addEventListener("click", toggle);
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("volume").addEventListener("input", () => (audio.volume = byId("volume").value));
  byId("seek").addEventListener("input", () => {
    if (Number.isFinite(audio.duration)) audio.currentTime = byId("seek").value * audio.duration;
  });
  audio.addEventListener("loadedmetadata", () => {
    const isWhole = !data.previews && Number.isFinite(audio.duration);
    if (byId("middle").checked && isWhole) audio.currentTime = audio.duration / 2;
  });
  audio.addEventListener("timeupdate", showTime);
  audio.addEventListener("ended", () => step(1));
  audio.addEventListener("error", () => explain());
  for (const name of ["play", "pause"]) audio.addEventListener(name, showPlaying);
  byId("player").hidden = !data.audio;
  on(["arrived"], () => state.playing >= 0 && showName());
}

// The address of a track's audio; "" if it has none.
export function audioOf(row) {
  if (data.previews) return previewOf(row);
  if (!data.audio || !data.audio[row]) return "";
  return data.served ? `audio/${row}${location.search}` : data.audio[row];
}

function previewOf(row) {
  const text = data.previews[row];
  if (!text) return "";
  embedded ||= new Map();
  if (!embedded.has(row)) {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    embedded.set(row, URL.createObjectURL(new Blob([bytes], { type: "audio/ogg" })));
  }
  return embedded.get(row);
}

// Plays a track. The queue, if one is given, goes on from there.
export function play(row, rows) {
  if (rows) queue = [...rows];
  else if (!queue.includes(row)) queue = [row];
  const source = audioOf(row);
  change({ playing: row });
  showName();
  if (!source)
    return explain(data.audio ? "no audio is listed for this track" : "this run has no audio");
  byId("said-player").textContent =
    queue.length > 1 ? `${queue.indexOf(row) + 1} of ${count(queue.length, "track")}` : "";
  audio.src = source;
  audio.play().catch((error) => {
    if (error.name === "NotAllowedError") explain("the browser wants a click first");
  });
}

function showName() {
  const name = [titleOf(state.playing), artistOf(state.playing)].filter(Boolean).join(" · ");
  byId("now").textContent = shown(name, 120);
}

export function toggle() {
  if (state.playing < 0) {
    if (state.focus >= 0) play(state.focus);
  } else if (audio.paused) audio.play().catch(() => {});
  else audio.pause();
}

export function pause() {
  audio.pause();
}

function step(by) {
  const place = queue.indexOf(state.playing) + by;
  if (place < 0 || place >= queue.length) return;
  play(queue[place]);
  change({ focus: queue[place] });
}

// Says why nothing is heard.
function explain(reason) {
  const name = data.audio && state.playing >= 0 ? fileName(state.playing) : "";
  const why = {
    2: "reading it failed",
    3: "its sound is damaged",
    4: "the file is not where it was, or this browser does not know its format",
  };
  const text = reason || why[audio.error?.code] || "unknown reason";
  byId("said-player").textContent = shown(`Cannot play${name ? ` ${name}` : ""}: ${text}.`, 200);
  announce(byId("said-player").textContent);
}

function fileName(row) {
  return data.asks ? `the file of ${idOf(row)}` : decoded(data.audio[row]).split("/").pop();
}

// A path as people write it; as it stands if its bytes are no UTF-8.
export function decoded(link) {
  try {
    return decodeURIComponent(link);
  } catch {
    return link;
  }
}

function showTime() {
  const { currentTime, duration } = audio;
  const clock = (seconds) =>
    `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
  const isKnown = Number.isFinite(duration);
  byId("seek").value = isKnown && duration ? currentTime / duration : 0;
  byId("time").textContent = isKnown
    ? `${clock(currentTime)} / ${clock(duration)}`
    : clock(currentTime);
}

function showPlaying() {
  byId("play").replaceChildren(icon(audio.paused ? "play" : "pause"));
  byId("play").setAttribute("aria-label", audio.paused ? "play" : "pause");
}
