/** The timeline's picture: parts stacked on the CUDA context, bands of phases, the card's line. */

import { byteTicks, eventTicks } from "memfit/charts/timeline-scale";
import { formatBytes, formatCount } from "memfit/ui/format";
import { t } from "memfit/ui/i18n";

const CACHE_ALPHA = 0.45;
const FONT = "11px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

/**
 * Draw everything but what follows the pointer.
 * @param {CanvasRenderingContext2D} pen or anything that draws like one
 * @param {Scale} scale
 * @param {{timeline: Timeline, contextBytes: number, limitBytes: number|null, pins: Described[]}} scene
 * @param {Record<string, string>} colours by name of the style sheet, without dashes
 */
export function drawTimeline(pen, scale, scene, colours) {
  pen.font = FONT;
  pen.fillStyle = colours.surface;
  pen.fillRect(0, 0, scale.width, scale.height);
  drawBands(pen, scale, scene, colours);
  drawGrid(pen, scale, colours);
  drawStack(pen, scale, scene, colours);
  drawLimit(pen, scale, scene, colours);
  drawPeak(pen, scale, scene, colours);
  drawAxes(pen, scale, colours);
  drawPins(pen, scale, scene, colours);
}

/**
 * What follows pointer and keys.
 * @param {CanvasRenderingContext2D} pen
 * @param {Scale} scale
 * @param {{hover: number|null, selected: number|null, drag: Stretch|null}} at
 * @param {Record<string, string>} colours
 */
export function drawCursor(pen, scale, { hover, selected, drag }, colours) {
  pen.clearRect(0, 0, scale.width, scale.height);
  if (drag) {
    pen.fillStyle = `${colours.accent}33`;
    const [from, to] = [scale.x(drag.from), scale.x(drag.to)];
    pen.fillRect(Math.min(from, to), scale.top, Math.abs(to - from), scale.bottom - scale.top);
  }
  if (hover !== null) verticalLine(pen, scale, hover, colours.muted, [3, 3]);
  if (selected !== null) verticalLine(pen, scale, selected, colours.accent, []);
}

/** The whole tape in small. */
export function drawOverview(pen, { width, height }, timeline, colours) {
  pen.clearRect(0, 0, width, height);
  const columns = timeline.columns(0, timeline.count, width);
  const most = timeline.peakReservedBytes || 1;
  const across = width / Math.max(1, columns.positions.length);
  for (const { phase, from, to } of timeline.bands) {
    pen.fillStyle = colours[`phase-${phase}`] ?? "transparent";
    const start = (from / timeline.count) * width;
    pen.fillRect(start, 0, ((to - from) / timeline.count) * width, height);
  }
  fillUnder(
    pen,
    columns.reserved,
    (index) => index * across,
    height,
    (bytes) => height - (bytes / most) * (height - 2),
    colours["part-cache"],
  );
  fillUnder(
    pen,
    columns.allocated,
    (index) => index * across,
    height,
    (bytes) => height - (bytes / most) * (height - 2),
    colours["part-activations"],
  );
}

function drawBands(pen, scale, { timeline }, colours) {
  const several = new Set(timeline.marks.map((mark) => mark.step)).size > 1;
  for (const { phase, step, from, to } of timeline.bands) {
    const start = Math.max(scale.left, scale.x(from));
    const end = Math.min(scale.right, scale.x(to));
    if (end <= start) continue;
    pen.fillStyle = colours[`phase-${phase}`] ?? "transparent";
    pen.fillRect(start, 0, end - start, scale.bottom);
    const label = several
      ? t("time.band", { phase: t(`phase.${phase}`), step: step + 1 })
      : t(`phase.${phase}`);
    drawFitting(pen, [label, t(`phase.${phase}`)], start, end, colours.text);
    pen.fillStyle = colours.line;
    if (start > scale.left) pen.fillRect(start, 0, 1, scale.bottom);
  }
}

/** The longest of some texts that fits between two places, in the middle of them. */
function drawFitting(pen, texts, start, end, colour) {
  const text = texts.find((words) => pen.measureText(words).width + 8 < end - start);
  if (!text) return;
  pen.fillStyle = colour;
  pen.textAlign = "center";
  pen.fillText(text, (start + end) / 2, 14);
}

function drawGrid(pen, scale, colours) {
  pen.fillStyle = colours.line;
  for (const { bytes } of byteTicks(scale.topBytes)) {
    pen.fillRect(scale.left, Math.round(scale.y(bytes)), scale.right - scale.left, 1);
  }
}

function drawStack(pen, scale, { timeline, contextBytes }, colours) {
  const { columns, xs } = columnsIn(scale, timeline);
  const layers = layersOf(columns, timeline.parts, contextBytes);
  pen.save();
  pen.beginPath();
  pen.rect(scale.left, scale.top, scale.right - scale.left, scale.bottom - scale.top);
  pen.clip();
  const x = (index) => xs[index];
  // the cache is drawn first, and pale: it holds nothing
  for (const { part, tops } of layers.toReversed()) {
    pen.globalAlpha = part === "cache" ? CACHE_ALPHA : 1;
    fillUnder(pen, tops, x, scale.bottom, scale.y, colours[`part-${part}`]);
  }
  line(
    pen,
    columns.reserved.map((bytes) => bytes + contextBytes),
    x,
    scale.y,
    colours.muted,
    1,
  );
  line(
    pen,
    columns.allocated.map((bytes) => bytes + contextBytes),
    x,
    scale.y,
    colours.text,
    1.2,
  );
  pen.restore();
}

/** Columns aligned to the tape, so that the picture does not flicker while it moves. */
function columnsIn(scale, timeline) {
  const { from, to } = scale.view;
  const across = Math.ceil(scale.right - scale.left);
  const step = Math.max(1, (to - from) / across);
  const first = Math.max(0, Math.floor(Math.floor(from / step) * step));
  const last = Math.min(timeline.count, Math.ceil(to) + Math.ceil(step));
  const columns = timeline.columns(first, last, Math.ceil((last - first) / step));
  const count = columns.positions.length;
  const each = (last - first) / Math.max(1, count);
  const xs = Float64Array.from({ length: count + 1 }, (_, i) => scale.x(first + i * each));
  return { columns, xs };
}

/** What is stacked, from the bottom up: tops in bytes. */
function layersOf(columns, parts, contextBytes) {
  const count = columns.positions.length;
  const running = new Float64Array(count).fill(contextBytes);
  const layers = contextBytes ? [{ part: "context", tops: running.slice() }] : [];
  parts.forEach((part, index) => {
    const bytes = columns.parts[index];
    for (let column = 0; column < count; column += 1) running[column] += bytes[column];
    layers.push({ part, tops: running.slice() });
  });
  const reserved = columns.reserved.map((bytes) => bytes + contextBytes);
  return [...layers, { part: "cache", tops: reserved }];
}

function fillUnder(pen, tops, x, bottom, y, colour) {
  if (!tops.length) return;
  pen.fillStyle = colour;
  pen.beginPath();
  pen.moveTo(x(0), bottom);
  stairs(pen, tops, x, y);
  pen.lineTo(x(tops.length), bottom);
  pen.closePath();
  pen.fill();
}

function line(pen, values, x, y, colour, width) {
  if (!values.length) return;
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.setLineDash([]);
  pen.beginPath();
  pen.moveTo(x(0), y(values[0]));
  stairs(pen, values, x, y);
  pen.stroke();
}

function stairs(pen, values, x, y) {
  for (let index = 0; index < values.length; index += 1) {
    const height = y(values[index]);
    if (index === 0 || values[index] !== values[index - 1]) pen.lineTo(x(index), height);
    if (values[index] !== values[index + 1]) pen.lineTo(x(index + 1), height);
  }
}

function drawLimit(pen, scale, { limitBytes }, colours) {
  if (!limitBytes) return;
  const isAbove = limitBytes > scale.topBytes;
  const y = isAbove ? scale.top + 1 : scale.y(limitBytes);
  const label = t(isAbove ? "time.cardAbove" : "time.card", { size: formatBytes(limitBytes) });
  pen.fillStyle = colours["card-line"];
  if (!isAbove) dashed(pen, scale.left, y, scale.right, y, colours["card-line"]);
  pen.font = `600 ${FONT}`;
  pen.textAlign = "left"; // where a step begins there is room
  const below = isAbove || y - 6 < scale.top + 10;
  halo(pen, label, scale.left + 6, below ? y + 13 : y - 5, colours.surface);
  pen.font = FONT;
}

function drawPeak(pen, scale, { timeline, contextBytes }, colours) {
  if (!timeline.count) return;
  const there = scale.x(timeline.peakPosition + 0.5);
  const x = Math.max(scale.left + 2, Math.min(scale.right - 2, there));
  const y = scale.y(timeline.peakAllocatedBytes + contextBytes);
  const isRight = x > (scale.left + scale.right) / 2;
  const away = isRight ? -1 : 1;
  pen.fillStyle = colours.text;
  if (x === there) triangle(pen, [x, y - 1], [x - 5, y - 9], [x + 5, y - 9]);
  else triangle(pen, [x, y - 7], [x + 8 * away, y - 12], [x + 8 * away, y - 2]); // it is out there
  pen.font = `600 ${FONT}`;
  pen.textAlign = isRight ? "right" : "left";
  const label = t("time.peakLabel", { size: formatBytes(timeline.peakAllocatedBytes) });
  halo(
    pen,
    label,
    x + (x === there ? 9 : 12) * away,
    Math.max(scale.top + 8, y - 3),
    colours.surface,
  );
  pen.font = FONT;
}

function triangle(pen, ...corners) {
  pen.beginPath();
  for (const [x, y] of corners) pen.lineTo(x, y);
  pen.fill();
}

function halo(pen, text, x, y, paper) {
  const ink = pen.fillStyle;
  pen.strokeStyle = paper;
  pen.lineWidth = 3;
  pen.lineJoin = "round";
  pen.setLineDash([]);
  pen.strokeText(text, x, y);
  pen.fillStyle = ink;
  pen.fillText(text, x, y);
}

function drawAxes(pen, scale, colours) {
  pen.fillStyle = colours.muted;
  pen.textAlign = "right";
  for (const { bytes, label } of byteTicks(scale.topBytes)) {
    pen.fillText(label, scale.left - 5, Math.max(10, scale.y(bytes) + 4));
  }
  pen.textAlign = "center";
  for (const event of eventTicks(scale.view, Math.max(2, scale.width / 150))) {
    const x = scale.x(event);
    if (x > scale.left + 10 && x < scale.right - 16) {
      pen.fillText(formatCount(event), x, scale.height - 6);
    }
  }
}

function drawPins(pen, scale, { pins }, colours) {
  pins.slice(0, scale.lanes).forEach(({ allocatedAt, freedAt, part }, lane) => {
    const start = Math.max(scale.left, scale.x(allocatedAt));
    const end = Math.min(scale.right, freedAt === null ? scale.right : scale.x(freedAt));
    if (end <= start) return;
    const y = 22 + 7 * lane;
    pen.fillStyle = `${colours.accent}1f`;
    pen.fillRect(start, y, end - start, scale.bottom - y);
    pen.fillStyle = colours[`part-${part}`];
    pen.fillRect(start, y, Math.max(2, end - start), 5);
    pen.strokeStyle = colours.text;
    pen.lineWidth = 1;
    pen.setLineDash([]);
    pen.strokeRect(start + 0.5, y + 0.5, Math.max(2, end - start) - 1, 4);
  });
}

function dashed(pen, x0, y0, x1, y1, colour) {
  pen.strokeStyle = colour;
  pen.lineWidth = 1.5;
  pen.setLineDash([6, 4]);
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
  pen.setLineDash([]);
}

function verticalLine(pen, scale, position, colour, dashes) {
  const x = Math.round(scale.x(position + 0.5)) + 0.5;
  if (x < scale.left || x > scale.right) return;
  pen.strokeStyle = colour;
  pen.lineWidth = dashes.length ? 1 : 2;
  pen.setLineDash(dashes);
  pen.beginPath();
  pen.moveTo(x, 18);
  pen.lineTo(x, scale.bottom);
  pen.stroke();
  pen.setLineDash([]);
}
