/** The whole tape below the timeline, with the stretch that is shown; drag it to move. */

import { drawOverview } from "memfit/charts/timeline-draw";
import { useWidth } from "memfit/ui/hooks";
import { html, useEffect, useElement, useRef } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const HEIGHT = 34;

/** @param {{timeline: Timeline, view: Stretch, move: Function,
 *   colours: Record<string, string>}} properties */
export function Overview({ timeline, view, move, colours }) {
  const [frame, width] = useWidth();
  const canvas = useElement();
  const grabbed = useRef(/** @type {number|null} */ (null));
  useEffect(() => {
    if (!width) return;
    const ratio = devicePixelRatio || 1;
    canvas.current.width = Math.round(width * ratio);
    canvas.current.height = Math.round(HEIGHT * ratio);
    const pen = canvas.current.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    drawOverview(pen, { width, height: HEIGHT }, timeline, colours);
  }, [timeline, width, colours]);
  const eventAt = (event) => {
    const box = frame.current.getBoundingClientRect();
    return ((event.clientX - box.left) / box.width) * timeline.count;
  };
  const centre = (event) => {
    const at = eventAt(event) + (grabbed.current ?? 0);
    move(({ from, to }) => ({ from: at - (to - from) / 2, to: at + (to - from) / 2 }));
  };
  const grab = (event) => {
    const at = eventAt(event);
    const isInside = at >= view.from && at <= view.to;
    grabbed.current = isInside ? (view.from + view.to) / 2 - at : 0;
    event.currentTarget.setPointerCapture(event.pointerId);
    centre(event);
  };
  const share = (events) => `${(100 * events) / Math.max(1, timeline.count)}%`;
  const box = { left: share(view.from), width: share(view.to - view.from) };
  return html`<div class="overview" ref=${frame} title=${t("time.overview")} onPointerDown=${grab}
    onPointerMove=${(event) => event.buttons && centre(event)} data-test="overview">
    <canvas ref=${canvas} aria-hidden="true"></canvas>
    <div class="window" style=${box}></div>
  </div>`;
}
