// Elements and texts. Every string of a run is data: it becomes a text node or an attribute of
// ours, never markup.

const UNSHOWN = /[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+/g;
const ICONS = {
  play: "M7 4.5v15l13-7.5z",
  pause: "M6 5h4.2v14H6zM13.8 5H18v14h-4.2z",
  next: "M5 5v14l9-7zM15.5 5H19v14h-3.5z",
  previous: "M19 5v14l-9-7zM5 5h3.5v14H5z",
  star: "M12 3l2.7 5.8 6.3.8-4.6 4.3 1.2 6.3L12 17l-5.6 3.2 1.2-6.3L3 9.6l6.3-.8z",
  close:
    "M6.4 5L12 10.6 17.6 5 19 6.4 13.4 12l5.6 5.6-1.4 1.4-5.6-5.6L6.4 19 5 17.6l5.6-5.6L5 6.4z",
};

export function byId(id) {
  return document.getElementById(id);
}

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== null));
  return node;
}

export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

// A text as it is safe to show: in one line, without what controls its direction, and clipped.
export function shown(text, most = 160) {
  const line = String(text)
    .slice(0, 4 * most)
    .replace(UNSHOWN, " ")
    .trim();
  return line.length > most ? `${line.slice(0, most - 1)}…` : line;
}

// The same as an element that keeps its direction to itself.
export function words(text, className = "", most = 160) {
  return el("bdi", { class: className || false }, shown(text, most) || "–");
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function rounded(value, whole = false) {
  if (!Number.isFinite(value)) return "–";
  return whole ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

export function announce(text) {
  byId("said").textContent = text;
}
