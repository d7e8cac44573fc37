// What the person has chosen, and who wants to know of a change.

export const state = {
  map: 0, // of data.maps
  column: 0, // of data.columns, which colours the points
  words: "", // that tracks must contain
  filters: [], // { column, sign, value } or { column, sign: "in", values }
  fits: new Uint8Array(0), // whether each track meets them all
  fitting: 0, // how many do
  selected: new Set(), // rows
  focus: -1, // the row in question
  playing: -1, // the row that is heard
  tool: "move",
  names: {}, // that were given to clusters, by value
  marks: new Set(), // ids
};

const listeners = [];

// Calls `react` after any of `keys` changed.
export function on(keys, react) {
  listeners.push([keys, react]);
}

export function change(part) {
  Object.assign(state, part);
  for (const [keys, react] of listeners) if (keys.some((key) => key in part)) react(part);
}
