/** The timeline of a step: look, zoom, pan, step through, and choose an instant. */

import { drawCursor, drawTimeline } from "memfit/charts/timeline-draw";
import { useGestures } from "memfit/charts/timeline-gestures";
import { Overview } from "memfit/charts/timeline-overview";
import {
  firstView,
  isWithin,
  lastFullStep,
  scaleOf,
  topBytesOf,
  withinTape,
  zoomed,
} from "memfit/charts/timeline-scale";
import { formatBytes, formatCount, shortOperator } from "memfit/ui/format";
import { useWidth } from "memfit/ui/hooks";
import {
  html,
  useEffect,
  useElement,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { SNAPSHOT_PARTS } from "memfit/ui/parts";
import { cssColour } from "memfit/ui/theme";

const COLOURS = [
  ...SNAPSHOT_PARTS.map((part) => `part-${part}`),
  "phase-data",
  "phase-forward",
  "phase-backward",
  "phase-optimizer",
  "surface",
  "line",
  "text",
  "muted",
  "accent",
  "card-line",
];
const MOST_LANES = 8;
const FRAME_MS = 12; // somewhat less than a frame at 60 Hz

/** The style sheet's colours, by name without dashes. @returns {Record<string, string>} */
export function chartColours() {
  return Object.fromEntries(COLOURS.map((name) => [name, cssColour(`--${name}`)]));
}

/**
 * @param {{timeline: Timeline, contextBytes: number, limitBytes: number|null,
 *   selected: number|null, select: (position: number) => void, pins: Described[],
 *   focus: {from: number, to: number}|null, theme: Theme, language: Language}} properties
 */
export function TimelineChart(properties) {
  const { timeline, contextBytes, limitBytes, selected, select, pins, focus, theme } = properties;
  const [frame, width] = useWidth();
  const height = width < 520 ? 260 : 340;
  const [view, setView] = useTimelineView(timeline, focus);
  const [hover, setHover] = useState(/** @type {number|null} */ (null));
  const [drag, setDrag] = useState(/** @type {Stretch|null} */ (null));
  const lanes = Math.min(pins.length, MOST_LANES);
  const topBytes = topBytesOf(timeline, contextBytes, limitBytes);
  const scale = scaleOf({ width, height, view, topBytes, lanes });
  const colours = useMemo(chartColours, [theme]);
  const scene = { timeline, contextBytes, limitBytes, pins };
  const base = useCanvas(width, height, (pen) => drawTimeline(pen, scale, scene, colours), [
    timeline,
    contextBytes,
    limitBytes,
    pins,
    view,
    colours,
    properties.language,
  ]);
  const over = useCanvas(
    width,
    height,
    (pen) => drawCursor(pen, scale, { hover, selected, drag }, colours),
    [timeline, view, hover, selected, drag, colours, lanes, topBytes],
  );
  const move = (change) => setView((old) => withinTape(change(old), timeline.count));
  const gestures = useGestures({
    scale,
    move,
    select,
    setHover,
    setDrag,
    count: timeline.count,
    canvas: over,
  });
  const keys = useKeys({ timeline, selected, select, view, setView, move });
  return html`<div class="timeline" data-test="timeline" data-from=${Math.round(view.from)}
    data-to=${Math.round(view.to)} data-events=${timeline.count} data-selected=${selected}>
    <${Toolbar} ...${{ timeline, view, setView, move, select }} hasCard=${Boolean(limitBytes)} />
    <div class="timeline-frame" ref=${frame} style=${{ height: `${height}px` }}>
      <canvas ref=${base} aria-hidden="true"></canvas>
      <canvas ref=${over} class="over" tabindex="0" role="application" data-test="timeline-canvas"
        aria-label=${t("time.label", { events: formatCount(timeline.count) })}
        aria-describedby="timeline-help" ...${gestures} onKeyDown=${keys}></canvas>
    </div>
    <${Overview} ...${{ timeline, view, move, colours, language: properties.language }} />
    <${Readout} timeline=${timeline} position=${hover ?? selected ?? timeline.peakPosition}
      isHover=${hover !== null} />
    <p id="timeline-help" class="muted small help">${t("time.help")}</p>
  </div>`;
}

/**
 * The stretch shown: of each new tape its first view, kept while sizes change.
 * @returns {[Stretch, (change: Stretch|((old: Stretch) => Stretch)) => void]}
 */
function useTimelineView(timeline, focus) {
  const [view, setView] = useState(() => firstView(timeline));
  const tape = useRef(timeline.tape);
  if (tape.current !== timeline.tape) {
    const isOtherLength = tape.current.events.length !== timeline.tape.events.length;
    tape.current = timeline.tape;
    if (isOtherLength) setView(firstView(timeline));
  }
  useEffect(() => {
    if (focus) setView(withinTape(focus, timeline.count));
  }, [focus]);
  return [withinTape(view, timeline.count), setView];
}

/** A canvas at the screen's own resolution: drawn at once, and not twice for one frame. */
function useCanvas(width, height, draw, inputs) {
  const ref = useElement();
  const latest = useRef(/** @type {any} */ (null));
  const frame = useRef({ request: 0, drawnAt: -Infinity });
  latest.current = { width, height, draw };
  const paint = () => {
    const { width: across, height: down, draw: drawn } = latest.current;
    frame.current = { request: 0, drawnAt: performance.now() };
    drawn(sized(ref.current, across, down));
    ref.current.dataset.drawn = String(Number(ref.current.dataset.drawn ?? 0) + 1);
  };
  useEffect(() => () => cancelAnimationFrame(frame.current.request), []);
  useLayoutEffect(() => {
    if (!width || frame.current.request) return; // the frame to come draws what is latest then
    if (performance.now() - frame.current.drawnAt > FRAME_MS) paint();
    else frame.current.request = requestAnimationFrame(paint);
  }, [width, height, ...inputs]);
  return ref;
}

/** The pen of a canvas of so many CSS pixels. */
export function sized(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== across || canvas.height !== down) {
    canvas.width = across;
    canvas.height = down;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  return pen;
}

function Toolbar({ timeline, view, setView, move, select, hasCard }) {
  const zoom = (factor) => () => move((old) => zoomed(old, (old.from + old.to) / 2, factor));
  const jump = () => {
    select(timeline.peakPosition);
    setView(aroundPeak(timeline, view));
  };
  const button = (test, label, onClick, text = label) => html`<button type="button" class="button"
    data-test=${test} aria-label=${label} title=${label} onClick=${onClick}>${text}</button>`;
  return html`<div class="toolbar" role="group" aria-label=${t("time.tools")}>
    <button type="button" class="button primary" data-test="jump-to-peak" onClick=${jump}>
      ▾ ${t("time.jump")}</button>
    ${button("zoom-step", t("time.lastStep"), () => setView(lastFullStep(timeline)))}
    ${button("zoom-all", t("time.all"), () => setView({ from: 0, to: timeline.count }))}
    ${button("zoom-in", t("time.zoomIn"), zoom(0.5), "+")}
    ${button("zoom-out", t("time.zoomOut"), zoom(2), "−")}
    <${Key} hasCard=${hasCard} />
  </div>`;
}

function Key({ hasCard }) {
  return html`<span class="key small muted">
    <i class="stroke allocated"></i>${t("time.allocated")}
    <i class="stroke reserved"></i>${t("time.reserved")}
    ${hasCard && html`<i class="stroke card-limit"></i>${t("time.theCard")}`}
  </span>`;
}

/** The same stretch when it holds the peak; else one as long in the peak's step. */
function aroundPeak(timeline, view) {
  const peak = timeline.peakPosition;
  return isWithin(peak, view) ? view : centredOn(peak, view, timeline.count);
}

function centredOn(position, { from, to }, count) {
  const half = (to - from) / 2;
  return withinTape({ from: position - half, to: position + half }, count);
}

function useKeys({ timeline, selected, select, view, setView, move }) {
  const last = timeline.count - 1;
  const go = (position) => {
    const to = Math.max(0, Math.min(last, position));
    select(to);
    if (!isWithin(to, view)) setView(centredOn(to, view, timeline.count));
  };
  return (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 10 : 1;
    const at = selected ?? timeline.peakPosition;
    const actions = {
      ArrowLeft: () => go(at - step),
      ArrowRight: () => go(at + step),
      Home: () => go(0),
      End: () => go(last),
      "+": () => move((old) => zoomed(old, at, 0.5)),
      "-": () => move((old) => zoomed(old, at, 2)),
      p: () => go(timeline.peakPosition),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  };
}

function Readout({ timeline, position, isHover }) {
  if (position >= timeline.count) return null;
  const made = timeline.describe(timeline.numberAt(position));
  const isFree = timeline.tape.events[position] < 0;
  const band = timeline.bands.findLast(({ from }) => from <= position);
  return html`<p class="readout number" data-test="readout" data-position=${position}
    aria-live=${isHover ? "off" : "polite"}>
    <b>${t("time.event", { number: formatCount(position) })}</b>
    ${band && html`<span>${t(`phase.${band.phase}`)}</span>`}
    <span>${isFree ? "−" : "+"}${formatBytes(made.sizeBytes)}${" "}
      <code>${shortOperator(made.operator)}</code></span>
    ${made.module && html`<code class="muted">${made.module}</code>`}
    ${made.place && html`<code class="muted" data-test="readout-place">${made.place}</code>`}
    <span>${t("time.allocated")}${" "}
      <b data-test="readout-allocated">${formatBytes(timeline.allocated[position])}</b></span>
    <span>${t("time.reserved")} <b>${formatBytes(timeline.reserved[position])}</b></span>
  </p>`;
}
