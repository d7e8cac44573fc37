// Which part of the map is seen. The map is a square from 0 to 1, and y points up.

const MARGIN = 28; // CSS pixels around the whole map
const MOST_ZOOM = 400;

export const camera = { x: 0.5, y: 0.5, zoom: 1, width: 1, height: 1 };

// CSS pixels per unit of the map.
export function pixels() {
  return Math.max(40, Math.min(camera.width, camera.height) - 2 * MARGIN) * camera.zoom;
}

export function toScreen(x, y) {
  const side = pixels();
  return [camera.width / 2 + (x - camera.x) * side, camera.height / 2 - (y - camera.y) * side];
}

export function toMap(left, top) {
  const side = pixels();
  return [camera.x + (left - camera.width / 2) / side, camera.y - (top - camera.height / 2) / side];
}

export function pan(right, down) {
  const side = pixels();
  camera.x = clamp(camera.x - right / side, -0.25, 1.25);
  camera.y = clamp(camera.y + down / side, -0.25, 1.25);
}

// Zooms by a factor; what is under (left, top) stays there.
export function zoomAt(factor, left = camera.width / 2, top = camera.height / 2) {
  const [x, y] = toMap(left, top);
  camera.zoom = clamp(camera.zoom * factor, 0.5, MOST_ZOOM);
  const [newX, newY] = toMap(left, top);
  camera.x += x - newX;
  camera.y += y - newY;
  pan(0, 0);
}

export function fit() {
  Object.assign(camera, { x: 0.5, y: 0.5, zoom: 1 });
}

// What the shader multiplies places by, and adds.
export function transform() {
  const side = pixels();
  const scale = [(2 * side) / camera.width, (2 * side) / camera.height];
  return { scale, shift: [-camera.x * scale[0], -camera.y * scale[1]] };
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
