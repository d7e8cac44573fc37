// The panels on the side, of which one is shown.

import { byId } from "./dom.js";

const NAMES = ["track", "list", "clusters"];

export function startTabs() {
  for (const [i, name] of NAMES.entries()) {
    const tab = byId(`tab-${name}`);
    tab.addEventListener("click", () => showTab(name));
    tab.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: NAMES.length - 1 }[event.key];
      if (!by) return;
      const next = NAMES[(i + by) % NAMES.length];
      showTab(next);
      byId(`tab-${next}`).focus();
    });
  }
}

export function showTab(name) {
  for (const one of NAMES) {
    const isShown = one === name;
    byId(one).hidden = !isShown;
    byId(`tab-${one}`).setAttribute("aria-selected", String(isShown));
    byId(`tab-${one}`).tabIndex = isShown ? 0 : -1;
  }
  byId(name).dispatchEvent(new Event("shown"));
}
