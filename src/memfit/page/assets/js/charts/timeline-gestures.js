/** What pointer and wheel do on the timeline: point, choose, pan, zoom, select a stretch. */

import { zoomed } from "memfit/charts/timeline-scale";
import { useEffect, useRef } from "memfit/ui/html";

const CLICK_PIXELS = 4;

/**
 * Drag pans; with Shift, or on the names of the phases, it selects a stretch; two fingers pinch;
 * the wheel zooms when the chart has the focus or Ctrl is held, and pans with Shift.
 * @param {{scale: object, move: (change: Function) => void, select: (position: number) => void,
 *   setHover: Function, setDrag: Function, count: number, canvas: {current: Element}}} chart
 * @returns {object} listeners for the canvas
 */
export function useGestures(chart) {
  const now = useRef(chart);
  now.current = chart;
  const touch = useRef({ points: new Map(), start: null, mode: null });
  useEffect(() => {
    const element = chart.canvas.current;
    const wheel = (event) => onWheel(event, element, now.current);
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  }, []);
  return {
    onPointerDown: (event) => begin(event, touch.current, now.current),
    onPointerMove: (event) => follow(event, touch.current, now.current),
    onPointerUp: (event) => end(event, touch.current, now.current),
    onPointerCancel: (event) => cancel(event, touch.current, now.current),
    onPointerLeave: () => now.current.setHover(null),
  };
}

function onWheel(event, element, { scale, move }) {
  const isPan = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
  const isZoom = event.ctrlKey || event.metaKey || document.activeElement === element;
  if (!isPan && !isZoom) return;
  event.preventDefault();
  if (isPan) {
    const pixels = event.deltaX || event.deltaY;
    move((view) => shifted(view, pixels * perPixel(scale, view)));
  } else {
    const around = scale.positionAt(event.offsetX);
    move((view) => zoomed(view, around, Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 150)));
  }
}

function begin(event, touch, { scale }) {
  event.currentTarget.focus({ preventScroll: true });
  event.currentTarget.setPointerCapture(event.pointerId);
  touch.points.set(event.pointerId, event.offsetX);
  const isStretch = event.shiftKey || event.offsetY < 20;
  touch.mode = touch.points.size > 1 ? "pinch" : isStretch ? "stretch" : "pan";
  const at = scale.positionAt(event.offsetX);
  touch.start = { x: event.offsetX, y: event.offsetY, at, last: event.offsetX, moved: false };
}

function follow(event, touch, { scale, move, setHover, setDrag, count }) {
  const { start } = touch;
  const at = scale.positionAt(event.offsetX);
  if (!touch.points.has(event.pointerId)) {
    const isInside = event.offsetX >= scale.left && event.offsetX <= scale.right;
    setHover(isInside && at >= 0 && at < count ? Math.floor(at) : null);
    return;
  }
  const before = [...touch.points.values()];
  touch.points.set(event.pointerId, event.offsetX);
  if (touch.mode === "pinch") {
    pinch(before, [...touch.points.values()], scale, move);
    return;
  }
  if (Math.abs(event.offsetX - start.x) > CLICK_PIXELS) start.moved = true;
  if (!start.moved) return;
  if (touch.mode === "stretch") {
    setDrag({ from: start.at, to: at });
  } else {
    const pixels = start.last - event.offsetX;
    start.last = event.offsetX;
    setHover(null);
    move((view) => shifted(view, pixels * perPixel(scale, view)));
  }
}

function end(event, touch, { scale, move, select, setDrag, count }) {
  touch.points.delete(event.pointerId);
  const { start, mode } = touch;
  touch.start = null;
  if (!start || mode === "pinch") return;
  const at = scale.positionAt(event.offsetX);
  if (!start.moved) {
    select(Math.max(0, Math.min(count - 1, Math.floor(at))));
  } else if (mode === "stretch") {
    setDrag(null);
    move(() => ({ from: Math.min(start.at, at), to: Math.max(start.at, at) }));
  }
}

function cancel(event, touch, { setDrag }) {
  touch.points.delete(event.pointerId);
  touch.start = null;
  setDrag(null);
}

function pinch(before, after, scale, move) {
  const [a, b] = before;
  const [c, d] = after;
  const factor = Math.max(10, Math.abs(a - b)) / Math.max(10, Math.abs(c - d));
  move((view) => {
    const around = view.from + ((c + d) / 2 - scale.left) * perPixel(scale, view);
    return zoomed(view, around, factor);
  });
}

function perPixel(scale, { from, to }) {
  return (to - from) / (scale.right - scale.left);
}

function shifted({ from, to }, events) {
  return { from: from + events, to: to + events };
}
