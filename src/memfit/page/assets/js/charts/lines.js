/** Lines and points on axes, drawn by uPlot in the colours of the page. */

import { html, useEffect, useElement, useRef } from "memfit/ui/html";
import { currentLanguage } from "memfit/ui/i18n";
import { cssColour } from "memfit/ui/theme";
import uPlot from "uplot";

const ROOM = 1.15; // of a logarithmic axis beyond the points
const MARGIN = 0.05; // of a straight axis
const CAP = 4; // half the width of an error bar's end, in pixels

/**
 * A line: points are [x, y] or [x, y, low, high].
 * @typedef {object} Line
 * @property {string} label
 * @property {string} colour name of a CSS variable
 * @property {number[][]} points
 * @property {"line"|"points"|"both"} [kind]
 * @property {boolean} [isDashed]
 * @property {boolean} [isFaint]
 * @property {boolean} [isStepped] a value holds until the next
 */

/**
 * An axis.
 * @typedef {{label: string, isLog?: boolean, format?: (value: number) => string,
 *   fromZero?: boolean, holds?: number[], isBytes?: boolean, splits?: number[]}} Axis
 *   `holds`: values that the axis reaches whatever the points are
 */

/**
 * A chart with its title; nothing where there is nothing to draw.
 * @param {object} props
 * @param {string} props.title
 * @param {string} [props.note]
 * @param {Line[]} props.lines
 * @param {Axis} props.x
 * @param {Axis} props.y
 * @param {{at: number, colour: string}[]} [props.verticals]
 * @param {string} props.theme
 * @param {string} [props.name] for tests
 */
export function Chart({ title, note = "", lines, x, y, verticals = [], theme, name = "" }) {
  const place = useElement();
  const shown = lines.filter((line) => line.points.some(([, value]) => value !== null));
  const plot = useRef(/** @type {uPlot|null} */ (null));
  const now = useRef(/** @type {any} */ (null));
  now.current = { lines: shown, verticals, holds: [x.holds ?? [], y.holds ?? []] };
  const structure = JSON.stringify([
    theme,
    currentLanguage(),
    title,
    x.label,
    y.label,
    shown.map(({ label, colour, kind }) => [label, colour, kind]),
  ]);
  useEffect(() => {
    if (!shown.length) return undefined;
    const options = optionsOf(now, { x, y }, place.current);
    const made = new uPlot(options, alignedOf(shown), place.current);
    plot.current = made;
    const watch = new ResizeObserver(() => resize(made, place.current));
    watch.observe(place.current);
    return () => {
      watch.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [structure]);
  useEffect(() => {
    plot.current?.setData(alignedOf(shown));
  }, [lines]);
  if (!shown.length) return null;
  return html`<figure class="card study-plot" data-test=${name && `plot-${name}`}>
    <figcaption><h3>${title}</h3>
      ${note && html`<p class="muted small">${note}</p>`}</figcaption>
    <div ref=${place} class="plot-place"></div>
  </figure>`;
}

function heightFor(width) {
  return Math.round(Math.max(190, Math.min(300, width * 0.5)));
}

function resize(plot, place) {
  const width = Math.floor(place.clientWidth);
  if (width > 0 && width !== plot.width) plot.setSize({ width, height: heightFor(width) });
}

/** All points on one row of x, as uPlot takes them; null where a line has none. */
function alignedOf(lines) {
  const xs = [...new Set(lines.flatMap((line) => line.points.map(([x]) => x)))];
  xs.sort((a, b) => a - b);
  const rows = lines.map((line) => {
    const values = new Map(line.points.map(([x, value]) => [x, value]));
    return xs.map((x) => values.get(x) ?? null);
  });
  return [xs, ...rows];
}

function optionsOf(now, { x, y }, place) {
  const width = Math.floor(place.clientWidth) || 320;
  return {
    width,
    height: heightFor(width),
    scales: { x: scaleOf(x, () => extentOf(now, 0)), y: scaleOf(y, () => extentOf(now, 1)) },
    axes: [axisOf(x), { ...axisOf(y), size: y.isBytes ? 76 : 62 }],
    series: [
      { label: x.label, value: (_, value) => textOf(x, value) },
      ...now.current.lines.map((line) => seriesOf(line, y)),
    ],
    cursor: { drag: { x: false, y: false } },
    hooks: { draw: [(plot) => drawExtras(plot, now.current)] },
  };
}

function scaleOf({ isLog = false, fromZero = false }, extent) {
  /** @returns {[number, number]} */
  const range = () => {
    const [low, high] = extent();
    if (isLog) return [low / ROOM, high * ROOM];
    const room = MARGIN * (high - low || Math.abs(high) || 1);
    return [fromZero ? Math.min(0, low) : low - room, high + room];
  };
  return { time: false, distr: isLog ? 3 : 1, range };
}

/** Least and greatest of one coordinate, with the ends of error bars. */
function extentOf(now, coordinate) {
  const ends = coordinate === 0 ? [0] : [1, 2, 3];
  const values = now.current.lines.flatMap(({ points }) =>
    points.flatMap((point) => ends.map((end) => point[end])),
  );
  const known = [...values, ...now.current.holds[coordinate]].filter(
    (value) => typeof value === "number",
  );
  return [Math.min(...known), Math.max(...known)];
}

/** 1, 2, 5, 10, 20, 50 … within a range. */
function decadeSplits(low, high) {
  const splits = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power += 1) {
    splits.push(...[1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
  }
  return splits.filter((value) => value >= low && value <= high);
}

/** Round numbers of KiB, MiB or GiB: five at most. */
function byteSplits(low, high) {
  const step = 2 ** Math.ceil(Math.log2((high - low) / 5));
  const count = Math.floor(high / step) - Math.ceil(low / step) + 1;
  return Array.from({ length: count }, (_, index) => (Math.ceil(low / step) + index) * step);
}

function splitsOf({ isLog, isBytes, splits }) {
  if (isLog) return (_, __, low, high) => splits ?? decadeSplits(low, high);
  return isBytes ? (_, __, low, high) => byteSplits(low, high) : undefined;
}

function axisOf(axis) {
  const { label, format, isLog = false } = axis;
  const muted = cssColour("--muted");
  return {
    label,
    labelSize: 22,
    labelFont: "12px system-ui, sans-serif",
    font: "12px system-ui, sans-serif",
    stroke: muted,
    grid: { stroke: cssColour("--line"), width: 1 },
    ticks: { stroke: cssColour("--line"), width: 1 },
    splits: splitsOf(axis),
    filter: isLog ? (_, values) => values : undefined,
    values: (_, values) => values.map((value) => (value === null ? "" : textOf({ format }, value))),
  };
}

function textOf({ format }, value) {
  if (value === null || value === undefined) return "";
  if (format) return format(value);
  if (value !== 0 && Math.abs(value) < 0.01) return value.toExponential(1).replace("e-", "e−");
  return value.toLocaleString("en-US", { maximumSignificantDigits: 4 });
}

function seriesOf({ label, colour, kind = "line", isDashed, isFaint, isStepped }, y) {
  const stroke = cssColour(colour) + (isFaint ? "66" : "");
  return {
    label,
    stroke,
    width: kind === "points" ? 0 : isFaint ? 1 : 2,
    dash: isDashed ? [6, 4] : undefined,
    spanGaps: true,
    paths: isStepped ? uPlot.paths.stepped?.({ align: 1 }) : undefined,
    points: { show: kind !== "line", size: 7, fill: stroke, stroke },
    value: (_, value) => textOf(y, value),
  };
}

/** Error bars, and lines from top to bottom. */
function drawExtras(plot, { lines, verticals }) {
  const { ctx, bbox } = plot;
  const pixel = devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.setLineDash([]);
  for (const { colour, points } of lines) {
    ctx.strokeStyle = cssColour(colour);
    ctx.lineWidth = 1.5 * pixel;
    for (const [x, , low, high] of points) {
      if (low !== undefined && low !== null && high !== null) {
        errorBar(plot, { x, low, high, cap: CAP * pixel });
      }
    }
  }
  ctx.setLineDash([4 * pixel, 3 * pixel]);
  for (const { at, colour } of verticals) {
    const left = plot.valToPos(at, "x", true);
    ctx.strokeStyle = cssColour(colour);
    stroke(ctx, left, bbox.top, left, bbox.top + bbox.height);
  }
  ctx.restore();
}

function errorBar(plot, { x, low, high, cap }) {
  const left = plot.valToPos(x, "x", true);
  const [bottom, top] = [low, high].map((value) => plot.valToPos(value, "y", true));
  stroke(plot.ctx, left, bottom, left, top);
  for (const y of [bottom, top]) stroke(plot.ctx, left - cap, y, left + cap, y);
}

/** A straight line. */
export function stroke(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}
