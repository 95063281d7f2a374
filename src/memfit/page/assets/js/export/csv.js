/** Tables of a timeline as CSV (RFC 4180), safe to open in a spreadsheet. */

const EVENT_COLUMNS = [
  ...["position", "step", "phase", "event", "number", "size_bytes", "part", "operator", "module"],
  ...["shape", "dtype", "allocated_bytes", "reserved_bytes"],
];

const LIVE_COLUMNS = [
  ...["number", "size_bytes", "part", "step", "phase", "operator", "module", "shape", "dtype"],
  ...["allocated_at", "freed_at"],
];

/**
 * Every event of a timeline: what it allocates or frees, and what is in use after it.
 * @param {Timeline} timeline
 * @returns {string}
 */
export function timelineCsv(timeline) {
  const rows = [EVENT_COLUMNS];
  const first = { from: 0, to: timeline.bands[0]?.from ?? timeline.count, step: "", phase: "" };
  for (const { from, to, step, phase } of [first, ...timeline.bands]) {
    for (let position = from; position < to; position += 1) {
      const kind = timeline.tape.events[position] >= 0 ? "allocate" : "free";
      const made = timeline.describe(timeline.numberAt(position));
      rows.push([
        ...[position, step, phase, kind, made.number, made.sizeBytes, made.part, made.operator],
        ...[made.module, made.shape.join("x"), made.dtype],
        ...[timeline.allocated[position], timeline.reserved[position]],
      ]);
    }
  }
  return csv(rows);
}

/**
 * What is alive after an event; an empty freed_at is never freed.
 * @param {Timeline} timeline
 * @param {number} position
 * @returns {string}
 */
export function liveCsv(timeline, position) {
  const rows = timeline.liveAt(position).map((number) => {
    const made = timeline.describe(number);
    return [
      ...[number, made.sizeBytes, made.part, made.step, made.phase, made.operator, made.module],
      ...[made.shape.join("x"), made.dtype, made.allocatedAt, made.freedAt ?? ""],
    ];
  });
  return csv([LIVE_COLUMNS, ...rows]);
}

function csv(rows) {
  return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/** A cell; text that a spreadsheet would run as a formula is kept text by an apostrophe. */
function cell(value) {
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r\n]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
