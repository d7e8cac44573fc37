// Which colour and shape a track has: those of its group in a column, or a place on a scale.

import { data, number, MISSING } from "./data.js";
import { state } from "./state.js";

export const SHAPES = { o: 0, "^": 1, s: 2, D: 3, X: 4 };
const OTHER = { color: "#777777", shape: "D" };
const ABSENT = { color: "#a6a6a6", shape: "X" };
const NOISE = { color: "#9a9a9a", shape: "o" };
const EXTRA = ["D", "X", "^", "s", "o"]; // shapes of the second and further rounds of colours
// cividis, which looks the same to nearly all eyes
const SCALE = ["#00224e", "#2a3f6d", "#575c6d", "#7d7c78", "#a69d75", "#d3c164", "#fee838"];
const PAPER = { light: "#fbfaf7", dark: "#15171c" }; // as in style.css
const CONTRAST = 3; // that WCAG 2 asks of graphical objects

const cache = new Map();

export function theme() {
  return document.documentElement.dataset.theme;
}

// The groups of a column, each { name, values, count, color, shape, muted }, and each code's group.
export function groupsOf(column) {
  if (!cache.has(column)) cache.set(column, grouped(column));
  return cache.get(column);
}

function grouped(column) {
  const counts = new Array(column.values.length).fill(0);
  for (const code of column.codes) counts[code]++;
  const isClusters = column === data.clusterColumn || column.name.endsWith(" cluster");
  const isAbsent = (code) => column.values[code] === (isClusters ? "-1" : "");
  const codes = counts.map((_, code) => code).filter((code) => !isAbsent(code));
  let styled = codes;
  if (!isClusters && codes.length > data.palette.length) {
    const common = [...codes].sort((a, b) => counts[b] - counts[a] || a - b);
    styled = common.slice(0, data.palette.length).sort((a, b) => a - b);
  }
  const groups = styled.map((code, i) => {
    const round = Math.floor(i / data.palette.length);
    const [color, shape] = data.palette[i % data.palette.length];
    return {
      values: [column.values[code]],
      count: counts[code],
      color,
      shape: round ? EXTRA[(round - 1) % EXTRA.length] : shape,
    };
  });
  const groupOf = new Array(counts.length).fill(-1);
  styled.forEach((code, i) => (groupOf[code] = i));
  const gather = (chosen, style, name) => {
    if (!chosen.length) return;
    chosen.forEach((code) => (groupOf[code] = groups.length));
    const values = chosen.map((code) => column.values[code]);
    const total = chosen.reduce((sum, code) => sum + counts[code], 0);
    groups.push({ values, count: total, ...style, name, muted: true });
  };
  const others = codes.filter((code) => groupOf[code] < 0);
  gather(others, OTHER, `${others.length.toLocaleString("en")} others`);
  const absent = counts.map((_, code) => code).filter(isAbsent);
  gather(absent, isClusters ? NOISE : ABSENT, isClusters ? "noise" : "not given");
  return { groups, groupOf };
}

export function groupName(column, group) {
  if (group.name) return group.name;
  const value = group.values[0];
  return column === data.clusterColumn ? clusterName(column.values.indexOf(value)) : value;
}

// The name of a cluster, by its code.
export function clusterName(code) {
  const value = data.clusterColumn.values[code];
  const given = state.names[value] ?? data.clusters.names[code];
  const suggested = data.clusters.suggested[code];
  if (given || value === "-1") return given || "noise";
  return suggested ? `${value} ${suggested}` : `cluster ${value}`;
}

export function clusterStyle(code) {
  const { groups, groupOf } = groupsOf(data.clusterColumn);
  return groups[groupOf[code]];
}

// Returns a function from a row to its { rgb, shape }, by the column that is chosen.
export function styling() {
  const column = data.columns[state.column];
  return column.kind === "number" ? scaleStyles() : groupStyles(column);
}

function groupStyles(column) {
  const { groups, groupOf } = groupsOf(column);
  const styles = groups.map((group) => ({
    rgb: rgb(visible(group.color)),
    shape: SHAPES[group.shape],
  }));
  return (row) => styles[groupOf[column.codes[row]]];
}

function scaleStyles() {
  const column = data.columns[state.column];
  const steps = Array.from({ length: 64 }, (_, i) => ({ rgb: rgb(scaleColor(i / 63)), shape: 0 }));
  const absent = { rgb: rgb(visible(ABSENT.color)), shape: SHAPES.X };
  return (row) => {
    const step = column.steps[row];
    return step === MISSING ? absent : steps[Math.round((63 * step) / (MISSING - 1))];
  };
}

// A colour of the scale, 0 to 1. It runs away from the background: dark is much on a light one.
export function scaleColor(share) {
  const place = (theme() === "dark" ? 0.22 + 0.78 * share : 0.8 * (1 - share)) * (SCALE.length - 1);
  const first = Math.min(Math.floor(place), SCALE.length - 2);
  return mixed(SCALE[first], SCALE[first + 1], place - first);
}

export function colorOf(row) {
  const column = data.columns[state.column];
  if (column.kind !== "number") {
    const { groups, groupOf } = groupsOf(column);
    return visible(groups[groupOf[column.codes[row]]].color);
  }
  const value = number(column, row);
  const share = (value - column.low) / (column.high - column.low || 1);
  return Number.isNaN(value) ? visible(ABSENT.color) : scaleColor(share);
}

// What is behind the points, as bytes.
export function paper() {
  return rgb(PAPER[theme()]);
}

// A colour, moved away from the background until it stands out.
export function visible(color) {
  const background = luminance(PAPER[theme()]);
  const end = theme() === "dark" ? "#ffffff" : "#000000";
  let moved = color;
  for (let share = 0; share < 1 && contrast(luminance(moved), background) < CONTRAST; ) {
    share += 0.04;
    moved = mixed(color, end, share);
  }
  return moved;
}

function contrast(a, b) {
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}

function luminance(color) {
  const [r, g, b] = rgb(color).map((byte) => {
    const c = byte / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function rgb(color) {
  return [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));
}

function mixed(a, b, share) {
  const [from, to] = [rgb(a), rgb(b)];
  const bytes = from.map((byte, i) => Math.round(byte + share * (to[i] - byte)));
  return `#${bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
