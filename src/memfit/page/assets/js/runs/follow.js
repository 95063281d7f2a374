/** A run that grows: new rows join those that the page has. */

/** @type {Followed} */
export const NOTHING = { document: null, rows: [] };

/**
 * The rows and the answer of the server together.
 *
 * A resumed run takes rows back. Where that shows, the answer is null: ask for all rows again.
 * @param {Followed} known
 * @param {RunDocument} found
 * @returns {Followed|null}
 */
export function joined(known, found) {
  if (found.first_row === 0) return { document: found, rows: found.rows };
  const isOther = known.document?.name !== found.name || found.first_row !== known.rows.length;
  const hasRestarted = known.document && known.document.resumed !== found.resumed;
  const [next] = found.rows;
  const last = known.rows.at(-1);
  if (isOther || hasRestarted || (next && last && next.step < last.step)) return null;
  return { document: found, rows: [...known.rows, ...found.rows] };
}

/** The last optimizer step that was written. @param {Record<string, any>[]} rows */
export function lastStep(rows) {
  return rows.findLast((row) => row.event === "step")?.step ?? 0;
}

/** `[step, value]` of the rows of one event that have the value. */
export function pointsOf(rows, event, key) {
  return rows
    .filter((row) => row.event === event && typeof row[key] === "number")
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
