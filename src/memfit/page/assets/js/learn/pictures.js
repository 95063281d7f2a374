/** Two pictures to look at, drawn by arithmetic: a grey digit and a small photo-like scene. */

import { IMAGES } from "memfit/learn/world";

const STROKE = 1.25; // half the width of the pen, in pixels
const SOFT = 1.1; // over which the ink fades

/** The example of each kind of image. @returns {import("memfit/data/pixels").View} */
export function exampleOf(image) {
  const [count, height, width] = IMAGES[image].shape;
  const colourAt = image === "grey" ? digitAt : sceneAt;
  const channels = Array.from({ length: count }, () => new Uint8Array(height * width));
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const colour = colourAt(column + 0.5, row + 0.5);
      channels.forEach((plane, k) => {
        plane[row * width + column] = Math.round(255 * Math.max(0, Math.min(1, colour[k])));
      });
    }
  }
  return { height, width, channels };
}

/** A handwritten 3: two arcs and the stroke that begins it. */
function digitAt(x, y) {
  const upper = arcDistance(x, y, { cx: 13.6, cy: 9.6, radius: 4.4, from: -165, to: 95 });
  const lower = arcDistance(x, y, { cx: 13.3, cy: 18.6, radius: 5.0, from: -90, to: 155 });
  return [1 - (Math.min(upper, lower) - STROKE) / SOFT];
}

/** Distance from a point to an arc; angles in degrees, clockwise from the right. */
function arcDistance(x, y, { cx, cy, radius, from, to }) {
  const angle = (Math.atan2(y - cy, x - cx) * 180) / Math.PI;
  const turned = [angle, angle + 360, angle - 360].find((a) => a >= from && a <= to);
  if (turned !== undefined) return Math.abs(Math.hypot(x - cx, y - cy) - radius);
  return Math.min(
    ...[from, to].map((end) => {
      const at = (end * Math.PI) / 180;
      return Math.hypot(x - cx - radius * Math.cos(at), y - cy - radius * Math.sin(at));
    }),
  );
}

/** A red house on a green hill under a blue sky with a sun. */
function sceneAt(x, y) {
  const ripple = 0.04 * Math.sin(1.7 * x + 2.3 * y) + 0.03 * Math.sin(0.9 * y - 2.1 * x);
  const hill = 23 - 3.5 * Math.sin((x - 4) / 7);
  const inHouse = x > 9 && x < 20 && y > 15 && y < 25;
  const inRoof = y > 9 && y <= 15 && Math.abs(x - 14.5) < (y - 8.2) * 1.05;
  const inDoor = x > 12.6 && x < 15.6 && y > 19.4 && y < 25;
  const inWindow = x > 16.4 && x < 18.6 && y > 17.4 && y < 19.8;
  if (inDoor) return [0.36, 0.2 + ripple, 0.12];
  if (inWindow) return [0.98, 0.9, 0.55];
  if (inHouse) return [0.82 + ripple, 0.25 + ripple, 0.2];
  if (inRoof) return [0.45 + ripple, 0.16, 0.2];
  if (y > hill) return [0.2 + ripple, 0.58 + ripple - (y - hill) / 60, 0.22];
  const sun = Math.hypot(x - 25.5, y - 6.5);
  const glow = Math.exp(-Math.max(0, sun - 3) / 3);
  const sky = [0.35 + y / 60, 0.62 + y / 90, 0.93];
  const warm = [1, 0.87, 0.32];
  return sky.map((value, k) => value + glow * (warm[k] - value) + ripple / 3);
}
