// The sign of a group in lists: its shape in its colour.

import { visible } from "./colors.js";

const PATHS = {
  o: "M8 2a6 6 0 1 1 0 12A6 6 0 0 1 8 2z",
  "^": "M8 2l6.5 11.5h-13z",
  s: "M3 3h10v10H3z",
  D: "M8 1l7 7-7 7-7-7z",
  X: "M4.2 1.5L8 5.3l3.8-3.8 2.7 2.7L10.7 8l3.8 3.8-2.7 2.7L8 10.7l-3.8 3.8-2.7-2.7L5.3 8 1.5 4.2z",
};

export function swatch({ color, shape }) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "swatch");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", PATHS[shape]);
  path.setAttribute("fill", visible(color));
  svg.append(path);
  return svg;
}
