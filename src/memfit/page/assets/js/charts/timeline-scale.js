/** Where an event and a number of bytes lie on the timeline's canvas. */

const KIB = 1024;
/** @type {[string, number][]} */
const UNITS = [
  ["GiB", KIB ** 3],
  ["MiB", KIB ** 2],
  ["KiB", KIB],
  ["B", 1],
];
/** The card's line belongs to the picture unless the step needs less than this share of it. */
const WORTH_SHOWING = 0.3;

/**
 * @param {{width: number, height: number, view: Stretch, topBytes: number, lanes?: number}} frame
 */
export function scaleOf({ width, height, view, topBytes, lanes = 0 }) {
  const left = width < 520 ? 52 : 58;
  const right = width - 6;
  const top = 22 + 7 * lanes;
  const bottom = height - 20;
  const perEvent = (right - left) / (view.to - view.from);
  return {
    width,
    height,
    left,
    right,
    top,
    bottom,
    view,
    topBytes,
    lanes,
    x: (position) => left + (position - view.from) * perEvent,
    y: (bytes) => bottom - (bytes / topBytes) * (bottom - top),
    positionAt: (pixel) => view.from + (pixel - left) / perEvent,
  };
}

/** The bytes at the top of the axis. @returns {number} */
export function topBytesOf(timeline, contextBytes, limitBytes) {
  const most = timeline.peakReservedBytes + contextBytes;
  const isNear = limitBytes && limitBytes * WORTH_SHOWING <= most;
  return Math.max(most, isNear ? limitBytes : 0, 1) * 1.06;
}

/** Round numbers of bytes for an axis. @returns {{bytes: number, label: string}[]} */
export function byteTicks(topBytes, count = 5) {
  const [name, unit] = UNITS.find(([, size]) => topBytes >= size) ?? UNITS[3];
  const step = niceStep(topBytes / unit / count);
  const ticks = [];
  for (let value = 0; value * unit <= topBytes; value += step) {
    ticks.push({ bytes: value * unit, label: `${Number(value.toFixed(3))} ${name}` });
  }
  return ticks;
}

/** Round event numbers within a view. @returns {number[]} */
export function eventTicks({ from, to }, count) {
  const step = Math.max(1, niceStep((to - from) / count));
  const ticks = [];
  for (let value = Math.ceil(from / step) * step; value < to; value += step) ticks.push(value);
  return ticks;
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 2.5, 5].find((factor) => factor * power >= rough) ?? 10);
}

/** The last training step that ran through; everything when there is none. @returns {Stretch} */
export function lastFullStep(timeline) {
  const { marks, count } = timeline;
  const starts = marks.filter((mark, index) => index === 0 || mark.step !== marks[index - 1].step);
  const isFull = (step) =>
    ["forward", "backward", "optimizer"].every((phase) =>
      marks.some((mark) => mark.step === step && mark.phase === phase),
    );
  const index = starts.findLastIndex(({ step }) => isFull(step));
  if (index < 0) return { from: 0, to: Math.max(1, count) };
  return { from: starts[index].position, to: starts[index + 1]?.position ?? count };
}

/** What is shown first: the last full step, or everything when the peak is not in it. */
export function firstView(timeline) {
  const step = lastFullStep(timeline);
  const all = { from: 0, to: Math.max(1, timeline.count) };
  return isWithin(timeline.peakPosition, step) ? step : all;
}

/** Whether an event lies in a view. */
export function isWithin(position, { from, to }) {
  return position >= from && position < to;
}

/** A view within the tape, not narrower than a few events. @param {Stretch} view @returns {Stretch} */
export function withinTape({ from, to }, count) {
  const span = Math.min(Math.max(to - from, Math.min(8, count)), Math.max(1, count));
  const start = Math.min(Math.max(0, from + (to - from - span) / 2), Math.max(0, count - span));
  return { from: start, to: start + span };
}

/** A stretch with another width around a place that stays where it is. */
export function zoomed({ from, to }, around, factor) {
  return { from: around - (around - from) * factor, to: around + (to - around) * factor };
}
