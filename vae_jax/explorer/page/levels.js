// Levels of attention, from the back to the front, and how large and how opaque their points are.

export const LEVELS = { unfit: 0, plain: 1, selected: 2, faint: 3 };
export const SIZES = [0.62, 1, 1.3, 1];
export const ALPHAS = [0.2, 1, 1, 0.35];
