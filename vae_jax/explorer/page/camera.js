// Which part of the map is seen. The map is a square from 0 to 1, and y points up.

const MARGIN = 28; // CSS pixels around the whole map
const MOST_ZOOM = 400;

// `left` and `right` are what legend and tools cover of the width; the map is centred between them.
export const camera = { x: 0.5, y: 0.5, zoom: 1, width: 1, height: 1, left: 0, right: 0 };

// CSS pixels per unit of the map.
export function pixels() {
  const side = Math.min(camera.width - camera.left - camera.right, camera.height);
  return Math.max(40, side - 2 * MARGIN) * camera.zoom;
}

// Where the camera's place is on the screen.
export function centre() {
  return [(camera.left + camera.width - camera.right) / 2, camera.height / 2];
}

export function toScreen(x, y) {
  const [side, [left, top]] = [pixels(), centre()];
  return [left + (x - camera.x) * side, top - (y - camera.y) * side];
}

export function toMap(left, top) {
  const [side, [middle, half]] = [pixels(), centre()];
  return [camera.x + (left - middle) / side, camera.y - (top - half) / side];
}

export function pan(right, down) {
  const side = pixels();
  camera.x = clamp(camera.x - right / side, -0.25, 1.25);
  camera.y = clamp(camera.y + down / side, -0.25, 1.25);
}

// Zooms by a factor; what is under (left, top) stays there.
export function zoomAt(factor, left = centre()[0], top = centre()[1]) {
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
  const aside = (camera.left - camera.right) / camera.width;
  return { scale, shift: [aside - camera.x * scale[0], -camera.y * scale[1]] };
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
