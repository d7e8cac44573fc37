// Keeps what a person gave: names of clusters, marks on tracks, light or dark. It stays in the
// browser, under the run's own key; where a browser keeps nothing, the page works without.

import { data } from "./data.js";
import { on, state } from "./state.js";

const name = () => `vae_jax-explorer-${data.key}`;

export function restore() {
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(name()) || "{}");
  } catch {
    // a sandboxed page, or somebody else's content
  }
  const { names, marks, theme } = kept && typeof kept === "object" ? kept : {};
  if (names && typeof names === "object") {
    const texts = Object.entries(names).filter(([, given]) => typeof given === "string");
    state.names = Object.fromEntries(texts);
  }
  if (Array.isArray(marks)) state.marks = new Set(marks.map(String));
  const prefersDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const fallback = prefersDark ? "dark" : "light";
  document.documentElement.dataset.theme = ["light", "dark"].includes(theme) ? theme : fallback;
  on(["names", "marks", "theme"], keep);
}

function keep() {
  const { names, marks } = state;
  const theme = document.documentElement.dataset.theme;
  try {
    localStorage.setItem(name(), JSON.stringify({ names, marks: [...marks], theme }));
  } catch {
    // full, or forbidden
  }
}
