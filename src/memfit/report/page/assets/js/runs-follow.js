/** A run that grows: new rows join those that the page has. */

/**
 * What the page knows of a run.
 * @typedef {{document: object|null, rows: object[], speeds: [number, number][]}} Followed
 */

/** @type {Followed} */
export const NOTHING = { document: null, rows: [], speeds: [] };

/**
 * The rows and the answer of the server together.
 *
 * A resumed run takes rows back. Where that shows, the answer is null: ask for all rows again.
 * @param {Followed} known
 * @param {object} found a run document
 * @returns {Followed|null}
 */
export function joined(known, found) {
  if (found.first_row === 0) {
    return { document: found, rows: found.rows, speeds: grown(known, found, found.rows) };
  }
  const isOther = known.document?.name !== found.name || found.first_row !== known.rows.length;
  const hasRestarted = known.document && known.document.resumed !== found.resumed;
  const [next] = found.rows;
  const last = known.rows.at(-1);
  if (isOther || hasRestarted || (next && last && next.step < last.step)) return null;
  const rows = [...known.rows, ...found.rows];
  return { document: found, rows, speeds: grown(known, found, rows) };
}

/** Samples a second between two answers, at the later step: the page watches the run. */
function grown({ document: before, rows: old, speeds }, found, rows) {
  const isSame = before?.name === found.name && before.resumed === found.resumed;
  if (!isSame) return [];
  const [from, to] = [lastStep(old), lastStep(rows)];
  const seconds = found.metrics_seconds - before.metrics_seconds;
  const batch = found.recipe?.global_batch;
  if (!batch || !(seconds > 0) || to <= from) return speeds;
  return [...speeds, [to, ((to - from) * batch) / seconds]];
}

/** The last optimizer step that was written. @param {object[]} rows */
export function lastStep(rows) {
  return rows.findLast((row) => row.event === "step")?.step ?? 0;
}

/** `[step, value]` of the rows of one event that have the value. */
export function pointsOf(rows, event, key) {
  return rows.filter((row) => row.event === event && typeof row[key] === "number")
    .map((row) => [row.step, row[key]]);
}

/** A running mean, so that a noisy loss can be read. */
export function smoothed(points, share = 0.02) {
  const width = Math.max(1, Math.round(points.length * share));
  let sum = 0;
  return points.map(([step, value], index) => {
    sum += value - (index >= width ? points[index - width][1] : 0);
    return [step, sum / Math.min(width, index + 1)];
  });
}
