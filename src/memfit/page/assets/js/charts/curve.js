/** Memory against the batch: needed and total, the card's line, and what was measured. */

import { stroke } from "memfit/charts/lines";
import { formatBytes, formatCount } from "memfit/ui/format";
import { useWidth } from "memfit/ui/hooks";
import { html, useEffect, useElement, useMemo, useRef, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { cssColour } from "memfit/ui/theme";
import uPlot from "uplot";

const POINTS = 33;
const POINTS_OF_LONG_TAPES = 13;
const LONG_TAPE = 30000; // events
const SLICE_MS = 10;

/**
 * @param {{curves: {label: string, plan: Plan, card: Card, dashed?: boolean}[],
 *   limitBytes: number|null, limits: Limits|null, batch: number, last: number,
 *   measured: MeasuredPoint[], choose: (batch: number) => void, theme: Theme, language: Language,
 *   version: number, label: string}} properties
 */
export function MemoryCurve(properties) {
  const { curves, measured, batch, last, limits, limitBytes, choose, label } = properties;
  const [frame, width] = useWidth();
  const host = useElement();
  const chart = useRef(/** @type {uPlot|null} */ (null));
  const live = useRef(properties);
  live.current = properties;
  const points = usePoints(curves, last, properties.version);
  const data = useMemo(() => dataOf(points, measured, last), [points, measured, last]);
  useEffect(() => {
    if (!width || points.length !== curves.length) return undefined;
    const options = optionsOf(properties, width, live);
    const made = new uPlot(options, data.columns, host.current);
    made.over.addEventListener("click", () => {
      const picked = made.posToVal(made.cursor.left ?? -1, "x");
      if (picked >= 1) choose(Math.round(picked));
    });
    chart.current = made;
    return () => made.destroy();
  }, [width, properties.theme, properties.language, curves.length, data]);
  useEffect(() => chart.current?.redraw(false), [batch, limits, limitBytes]);
  return html`<div class="curve" data-test="curve" data-points=${points[0]?.length ?? 0}>
    <div ref=${frame}><div ref=${host} role="img" aria-label=${label}></div></div>
    <p class="key small muted">
      ${curves.map(
        (curve, index) => html`<span key=${index}>
        <i class=${`stroke needed curve-${index}`}></i>${curve.label}${t("curve.needed")}
        <i class=${`stroke total curve-${index}`}></i>${curve.label}${t("curve.total")}</span>`,
      )}
      ${limitBytes && html`<span><i class="stroke card-limit"></i>${t("time.theCard")}</span>`}
    </p>
    <${Measured} measured=${measured} />
  </div>`;
}

function Measured({ measured }) {
  if (!measured.length) return null;
  const sources = [...new Set(measured.map((point) => point.source))];
  return html`<p class="small muted" data-test="measured-key">
    <i class="dot"></i>${t("curve.measured", { sources: sources.join("; ") })}</p>`;
}

/** The points of each curve, worked out in slices so that nothing else waits. */
function usePoints(curves, last, version) {
  const [points, setPoints] = useState([]);
  const inputs = curves.flatMap(({ plan, card }) => [plan, card.context_bytes]);
  useEffect(() => {
    let timer = 0;
    const jobs = curves.map(({ plan, card }) => ({ plan, card, todo: batchesOf(plan, last) }));
    const found = jobs.map(() => []);
    const work = () => {
      const until = performance.now() + SLICE_MS;
      while (performance.now() < until) {
        const index = jobs.findIndex(({ todo }) => todo.length);
        if (index < 0) {
          setPoints(found);
          return;
        }
        const { plan, card, todo } = jobs[index];
        const at = todo.shift();
        found[index].push(...plan.curve(card, { from: at, to: at, points: 1 }));
      }
      timer = setTimeout(work, 0);
    };
    timer = setTimeout(work, 60);
    return () => clearTimeout(timer);
  }, [...inputs, last, version, curves.length]);
  return points;
}

function batchesOf(plan, last) {
  if (!plan.isAffine) return plan.stops.filter((stop) => stop <= last);
  const isLong = plan.tape.events.length > LONG_TAPE;
  const gaps = Math.min(isLong ? POINTS_OF_LONG_TAPES : POINTS, last) - 1;
  const at = (gap) => 1 + Math.floor(((last - 1) * gap) / gaps);
  return [...new Set(Array.from({ length: gaps + 1 }, (_, gap) => at(gap)))];
}

/** Columns for uPlot: every batch of every curve and of what was measured, ascending. */
function dataOf(points, measured, last) {
  const seen = measured.filter((point) => point.batch_size <= last * 1.5);
  const batches = [
    ...new Set([
      1,
      last,
      ...points.flat().map(({ batch }) => batch),
      ...seen.map((p) => p.batch_size),
    ]),
  ].sort((a, b) => a - b);
  const column = (found, value) => {
    const byBatch = new Map(found.map((point) => [point.batch ?? point.batch_size, value(point)]));
    return batches.map((batch) => byBatch.get(batch) ?? null);
  };
  const curves = points.flatMap((found) => [
    column(found, (point) => point.neededBytes),
    column(found, (point) => point.totalBytes),
  ]);
  const readings = [
    column(seen, (point) => point.total_bytes ?? point.peak_reserved_bytes ?? null),
    column(seen, (point) => point.peak_allocated_bytes ?? null),
  ];
  return { columns: [batches, ...curves, ...readings] };
}

/** @returns {uPlot.Options} */
function optionsOf({ curves }, width, live) {
  const font = "11px system-ui, sans-serif";
  const axis = {
    stroke: cssColour("--muted"),
    font,
    grid: { stroke: cssColour("--line"), width: 1 },
    ticks: { show: false },
  };
  return {
    width,
    height: width < 520 ? 220 : 260,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
    padding: [14, 10, 0, 0],
    scales: { x: { time: false }, y: { range: (_, __, high) => rangeOf(high, live.current) } },
    axes: [
      {
        ...axis,
        size: 26,
        space: 60,
        values: (_, values) => values.map((value) => formatCount(value)),
      },
      {
        ...axis,
        size: 62,
        splits: (_, __, ___, high) => splitsOf(high),
        values: (_, values) => values.map(axisLabel),
      },
    ],
    series: [{}, ...curves.flatMap(seriesOf), ...readingsOf()],
    hooks: {
      draw: [(chart) => drawMarks(chart, live.current, font)],
      setCursor: [(chart) => showPoint(chart)],
    },
  };
}

function seriesOf(_, index) {
  const colour = cssColour(index ? "--part-optimizer" : "--part-activations");
  const line = { stroke: colour, spanGaps: true, points: { show: false } };
  return [
    { ...line, width: 2, fill: `${colour}22` },
    { ...line, width: 1.5, dash: [5, 4] },
  ];
}

function readingsOf() {
  const dot = (fill) => ({
    width: 0,
    stroke: cssColour("--text"),
    points: { show: true, size: 8, width: 1.5, fill },
    paths: () => null,
  });
  return [dot(cssColour("--text")), dot(cssColour("--surface"))];
}

/** @returns {[number, number]} */
function rangeOf(high, { limitBytes }) {
  const most = high ?? 0;
  const isNear = limitBytes && limitBytes < most * 4;
  return [0, Math.max(most, isNear ? limitBytes : 0, 1) * 1.08];
}

function splitsOf(high) {
  const step = 2 ** Math.ceil(Math.log2(high / 6));
  return Array.from({ length: Math.floor(high / step) + 1 }, (_, index) => index * step);
}

function axisLabel(bytes) {
  return bytes === 0 ? "0" : formatBytes(bytes).replace(/\.0+ /, " ");
}

/** The card, the shown batch, and the batches that matter. */
function drawMarks(chart, { limitBytes, limits, batch, last }, font) {
  const pen = chart.ctx;
  const ratio = devicePixelRatio || 1;
  pen.save();
  pen.font = font.replace("11px", `${11 * ratio}px`);
  pen.textBaseline = "alphabetic";
  pen.lineWidth = 1.5 * ratio;
  if (limitBytes) across(chart, pen, limitBytes, ratio);
  const marks = [
    [limits?.recommended, cssColour("--good")],
    [limits?.largest, cssColour("--card-line")],
    [batch, cssColour("--accent")],
  ];
  for (const [value, colour] of marks) {
    if (value > 0 && value <= last) down(chart, pen, value, colour, ratio, value === batch);
  }
  pen.restore();
}

function across(chart, pen, bytes, ratio) {
  const { left, width } = chart.bbox;
  const y = chart.valToPos(bytes, "y", true);
  if (y < chart.bbox.top) return;
  pen.strokeStyle = cssColour("--card-line");
  pen.setLineDash([6 * ratio, 4 * ratio]);
  stroke(pen, left, y, left + width, y);
  pen.fillStyle = cssColour("--card-line");
  pen.textAlign = "left";
  haloed(pen, t("time.card", { size: formatBytes(bytes) }), left + 6 * ratio, y - 5 * ratio, ratio);
}

function down(chart, pen, batch, colour, ratio, isShown) {
  const { top, height } = chart.bbox;
  const x = chart.valToPos(batch, "x", true);
  pen.strokeStyle = colour;
  pen.setLineDash(isShown ? [] : [2 * ratio, 3 * ratio]);
  stroke(pen, x, top, x, top + height);
  pen.fillStyle = colour;
  if (!isShown) return;
  pen.textAlign = "center";
  pen.fillText(formatCount(batch), x, top - 3 * ratio);
}

function haloed(pen, text, x, y, ratio) {
  pen.strokeStyle = cssColour("--surface");
  pen.lineWidth = 3 * ratio;
  pen.setLineDash([]);
  pen.strokeText(text, x, y);
  pen.fillText(text, x, y);
  pen.lineWidth = 1.5 * ratio;
}

/** What lies under the pointer, as a small note on the chart. */
function showPoint(chart) {
  let note = chart.over.querySelector(".note");
  if (!note) {
    note = Object.assign(document.createElement("div"), { className: "note small number" });
    chart.over.append(note);
  }
  const { idx, left } = chart.cursor;
  const isOver = idx !== null && idx !== undefined && left >= 0;
  note.hidden = !isOver;
  if (!isOver) return;
  const [needed, total] = [chart.data[1]?.[idx], chart.data[2]?.[idx]];
  const batch = formatCount(chart.data[0][idx]);
  const has = needed !== null && needed !== undefined && total !== undefined;
  const sizes = has ? { needed: formatBytes(needed), total: formatBytes(total) } : null;
  note.textContent = sizes ? t("curve.point", { batch, ...sizes }) : batch;
  note.style.left = `${Math.min(left + 8, Math.max(0, chart.over.clientWidth - 190))}px`;
}
