// What can be taken away: playlists, tables, ids, a picture, the names of clusters.

import { clusterName } from "./colors.js";
import { artistOf, cell, data, idOf, titleOf } from "./data.js";
import { announce, byId, count } from "./dom.js";
import { audioOf, decoded } from "./player.js";
import { draw } from "./map.js";
import { state } from "./state.js";

// Cells that a spreadsheet would run get an apostrophe, as in vae_jax/storage/files.py.
const FORMULA = /^(?:(?![-+@][\p{L}\p{N}_.+-]*$)[-+=@\t\r\n＝＋－＠]|'+[-+=@\t\r\n＝＋－＠])/u;
const BREAKS = /[\x00-\x1f\x7f-\x9f\u2028\u2029]+/g;

export function csvCell(value) {
  const text = FORMULA.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function table(rows) {
  return rows.map((cells) => `${cells.map(csvCell).join(",")}\n`).join("");
}

export function saveCsv(rows) {
  const header = ["id", ...data.columns.map((column) => column.name), "cluster_name", "marked"];
  const lines = rows.map((row) => [
    idOf(row),
    ...data.columns.map((column) => cell(column, row)),
    clusterName(data.clusterColumn.codes[row]),
    state.marks.has(idOf(row)) ? "yes" : "",
  ]);
  save("tracks.csv", "text/csv", table([header, ...lines]));
}

export function savePlaylist(rows) {
  const lines = ["#EXTM3U"];
  for (const row of rows) {
    const place = placeOf(row);
    if (!place || new RegExp(BREAKS).test(place)) continue;
    const called = [artistOf(row), titleOf(row)].map((text) => text.replace(BREAKS, " ").trim());
    lines.push(`#EXTINF:-1,${called.filter(Boolean).join(" - ")}`, place);
  }
  if (lines.length === 1) return announce("None of these tracks has a file to play.");
  save("tracks.m3u8", "audio/x-mpegurl", `${lines.join("\n")}\n`);
}

// Where a player finds a track from any folder.
function placeOf(row) {
  if (!data.audio || !data.audio[row]) return "";
  const link = data.served ? audioOf(row) : data.audio[row];
  let url;
  try {
    url = new URL(link, location.href);
  } catch {
    return decoded(link); // a page inside another one is nowhere
  }
  return url.protocol === "file:" ? decoded(url.pathname) : url.href;
}

export async function copyIds(rows) {
  const text = rows.map(idOf).join("\n");
  try {
    await navigator.clipboard.writeText(text);
    announce(`${count(rows.length, "id")} copied.`);
  } catch {
    save("ids.txt", "text/plain", `${text}\n`);
  }
}

export function saveNames() {
  const { values } = data.clusterColumn;
  const named = values.map((value, code) => [
    value,
    state.names[value] ?? data.clusters.names[code],
  ]);
  save(
    "cluster_names.csv",
    "text/csv",
    table([["id", "name"], ...named.filter(([, name]) => name)]),
  );
}

export function savePicture() {
  draw(); // WebGL's picture is gone after its frame
  const [points, overlay] = [byId("points"), byId("overlay")];
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [points.width, points.height];
  const context = canvas.getContext("2d");
  context.drawImage(points, 0, 0);
  context.drawImage(overlay, 0, 0);
  canvas.toBlob((blob) => download("map.png", blob), "image/png");
}

function save(name, type, text) {
  download(name, new Blob([text], { type: `${type};charset=utf-8` }));
}

function download(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  announce(`${name} is saved.`);
}
