/**
 * A timeline in the Chrome trace-event format, which ui.perfetto.dev and chrome://tracing open.
 *
 * Phases of events as in "Trace Event Format" (Google, the Chromium trace viewer's document):
 * C counts, X is a slice, i an instant, M names a process or thread. Perfetto makes one track of
 * every number of a counter (JsonTraceParser of google/perfetto), chrome://tracing stacks them.
 */

const PROCESS = 1;
const PHASES_THREAD = 1;
const MODULES_THREAD = 2;

/**
 * The trace as text. A traced plan has no clock: there one event takes one microsecond.
 * @param {Timeline} timeline
 * @param {{document: {model: {name: string}}}|null} plan whose model names the process
 * @returns {string}
 */
export function perfettoJson(timeline, plan = null) {
  const traceEvents = [
    ...names(plan?.document.model?.name ?? "memfit"),
    ...phaseSlices(timeline),
    ...moduleSlices(timeline),
    ...counters(timeline),
    ...instants(timeline),
  ];
  return JSON.stringify({ traceEvents, displayTimeUnit: "ns" });
}

function names(process) {
  const named = (kind, tid, name) => ({
    ...{ ph: "M", pid: PROCESS, tid, ts: 0, name: kind },
    args: { name },
  });
  return [
    named("process_name", PHASES_THREAD, process),
    named("thread_name", PHASES_THREAD, "phases"),
    named("thread_name", MODULES_THREAD, "modules"),
  ];
}

function phaseSlices(timeline) {
  return timeline.bands.map(({ phase, step, from, to }) => {
    const opened = slice(timeline, PHASES_THREAD, phase, from, { step });
    opened.dur = timeAt(timeline, to) - opened.ts;
    return opened;
  });
}

/** Nested slices: a module runs from its first allocation to the first one outside of it. */
function moduleSlices(timeline) {
  const slices = [];
  let open = []; // from the outermost in
  const goTo = (words, position) => {
    let shared = 0;
    while (shared < open.length && open[shared].name === words[shared]) shared += 1;
    for (const left of open.slice(shared)) left.dur = timeAt(timeline, position) - left.ts;
    open = open.slice(0, shared);
    for (let depth = shared; depth < words.length; depth += 1) {
      const module = words.slice(0, depth + 1).join(".");
      open.push(slice(timeline, MODULES_THREAD, words[depth], position, { module }));
      slices.push(open[depth]); // the outer one first, as slices that start together nest
    }
  };
  for (const { from, to } of timeline.bands) {
    for (let position = from; position < to; position += 1) {
      const event = timeline.tape.events[position];
      if (event >= 0) goTo(timeline.tape.moduleOf(event).split(".").filter(Boolean), position);
    }
    goTo([], to);
  }
  return slices;
}

function counters(timeline) {
  const { allocated, reserved, partBytes, parts } = timeline;
  const events = [];
  for (let position = 0; position < timeline.count; position += 1) {
    const count = (name, args) => {
      events.push({ ph: "C", pid: PROCESS, ts: timeAt(timeline, position), name, args });
    };
    const bytes = parts.map((part, index) => [part, partBytes[index][position]]);
    count("requested", Object.fromEntries(bytes));
    if (allocated[position] !== allocated[position - 1]) {
      count("allocated", { bytes: allocated[position] });
    }
    if (reserved[position] !== reserved[position - 1]) {
      count("reserved", { bytes: reserved[position] });
    }
  }
  return events;
}

function instants(timeline) {
  const at = (name, position, args) => ({
    ...{ ph: "i", s: "g", pid: PROCESS, tid: PHASES_THREAD, cat: "memory", name },
    ...{ ts: timeAt(timeline, position), args },
  });
  const { peakPosition, peakAllocatedBytes, outOfMemory } = timeline;
  const marked = [];
  if (timeline.count > 0) {
    marked.push(at("peak", peakPosition, { allocated_bytes: peakAllocatedBytes }));
  }
  if (outOfMemory !== null) {
    const { position, requestedBytes } = outOfMemory;
    marked.push(at("out of memory", position, { requested_bytes: requestedBytes }));
  }
  return marked;
}

function slice(timeline, tid, name, position, args) {
  return { ph: "X", pid: PROCESS, tid, ts: timeAt(timeline, position), dur: 0, name, args };
}

/** Microseconds of an event; of the one behind the last, when that one ended. */
function timeAt({ tape: { timesUs } }, position) {
  if (timesUs === null) return position;
  return timesUs[position] ?? timesUs.at(-1) + 1;
}
