/** The timeline, and below it what is alive at the chosen instant. */

import { TimelineChart } from "memfit/charts/timeline";
import { LiveTable } from "memfit/memory/live";
import { html, useMemo, useState } from "memfit/ui/html";

/**
 * @param {{timeline: Timeline, contextBytes: number, limitBytes: number|null, selected: number|null,
 *   select: Function, focus: object|null, theme: Theme, language: Language, title: string,
 *   children: any}} properties
 */
export function MemoryExplorer({
  timeline,
  contextBytes,
  limitBytes,
  selected,
  select,
  focus,
  theme,
  language,
  title,
  children,
}) {
  const [pinned, setPinned] = useState([]);
  const pins = useMemo(
    () =>
      pinned
        .filter((number) => number < timeline.tape.allocationCount)
        .map((number) => timeline.describe(number)),
    [pinned, timeline],
  );
  const at = selected === null ? null : Math.min(selected, timeline.count - 1);
  const step = stepper(timeline, at, select);
  return html`<section class="card" aria-label=${title} onKeyDown=${step}>
    <div class="card-head"><h2>${title}</h2>${children}</div>
    <${TimelineChart} ...${{ timeline, contextBytes, limitBytes, select, pins, focus, theme }}
      language=${language} selected=${at} />
    <${LiveTable} timeline=${timeline} position=${at} pinned=${pinned} setPinned=${setPinned}
      goTo=${select} />
  </section>`;
}

/** Arrow keys step through the events wherever the focus is, but where they move a cursor. */
function stepper(timeline, at, select) {
  return (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select")) return;
    event.preventDefault();
    const to = (at ?? timeline.peakPosition) + way * (event.shiftKey ? 10 : 1);
    select(Math.max(0, Math.min(timeline.count - 1, to)));
  };
}
