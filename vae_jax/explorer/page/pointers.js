// Turns pointers on the map into moving, zooming, hovering, choosing and selecting.

import { pan, toMap, zoomAt } from "./camera.js";
import { byId } from "./dom.js";
import { hitAt, moved, redraw, rowsIn, view } from "./map.js";
import { change, state } from "./state.js";
import { hideTip, showTip } from "./tip.js";

const STILL = 4; // CSS pixels that a click may move

export function watchPointers() {
  const surface = byId("surface");
  const fingers = new Map();
  let [drag, pinch] = [null, 0];
  surface.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    surface.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    pinch = fingers.size === 2 ? spread(fingers) : 0;
    const tool = event.shiftKey && state.tool === "move" ? "box" : state.tool;
    drag = { tool, start: place(event), last: place(event), hasMoved: false, adds: event.ctrlKey };
    view.path = [];
    hideTip();
  });
  surface.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return hover(event);
    fingers.set(event.pointerId, place(event));
    if (fingers.size === 2) {
      const now = spread(fingers);
      zoomAt(now / pinch, ...middle(fingers));
      pinch = now;
      drag = null;
      return redraw();
    }
    if (drag) dragTo(drag, place(event));
  });
  const end = (event) => {
    fingers.delete(event.pointerId);
    if (drag && event.type === "pointerup") finish(drag, event);
    drag = null;
    view.path = [];
    redraw();
  };
  surface.addEventListener("pointerup", end);
  surface.addEventListener("pointercancel", end);
  surface.addEventListener("pointerleave", () => hoverOver(-1));
  surface.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const lines = event.deltaMode ? 30 : 1;
      zoomAt(Math.exp(-0.0016 * lines * event.deltaY), ...place(event));
      moved();
    },
    { passive: false },
  );
  surface.addEventListener("dblclick", (event) => {
    zoomAt(2, ...place(event));
    moved();
  });
}

function place(event) {
  const box = byId("map").getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function spread(fingers) {
  const [a, b] = [...fingers.values()];
  return Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1]));
}

function middle(fingers) {
  const [a, b] = [...fingers.values()];
  return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
}

function dragTo(drag, now) {
  const far = Math.hypot(now[0] - drag.start[0], now[1] - drag.start[1]);
  drag.hasMoved ||= far > STILL;
  if (!drag.hasMoved) return;
  if (drag.tool === "move") pan(now[0] - drag.last[0], now[1] - drag.last[1]);
  if (drag.tool === "lasso") view.path.push(...(view.path.length ? [] : [drag.start]), now);
  if (drag.tool === "box") view.path = corners(drag.start, now);
  drag.last = now;
  redraw();
}

function corners([left, top], [right, bottom]) {
  return [
    [left, top],
    [right, top],
    [right, bottom],
    [left, bottom],
  ];
}

function finish(drag, event) {
  if (!drag.hasMoved) {
    const row = hitAt(...place(event));
    if (row >= 0) change({ focus: row, opened: true, chosen: row });
    else change({ focus: -1, selected: new Set() });
  } else if (drag.tool === "move") {
    change({ view: true });
  } else {
    const found = rowsIn(view.path.map(([left, top]) => toMap(left, top)));
    change({ selected: new Set(drag.adds ? [...state.selected, ...found] : found), drawn: true });
  }
}

function hover(event) {
  if (event.pointerType === "touch") return;
  hoverOver(hitAt(...place(event)), place(event));
}

function hoverOver(row, at) {
  if (row >= 0) showTip(row, ...at);
  else hideTip();
  byId("surface").classList.toggle("hit", row >= 0);
  if (row === view.hovered) return;
  view.hovered = row;
  redraw();
}
