/**
 * The largest batches that run, by the rule of memfit's planner/largest.py;
 * tests/engine/limits.json holds both to the same answers.
 */

const STOPS = 32; // from one power of two to the next
const LEAST_STOP = 8;
const EIGHTH = 8;

/** @typedef {(batch: number) => boolean} Runs */

/**
 * The limits of a card.
 * @param {Runs} runs whether a batch runs on the card
 * @param {Runs} runsSafely the same with the recipe's `safety` of the memory
 * @param {number} last no larger batch is asked about
 * @param {number} useful no larger batch is recommended
 * @param {number} stops from one power of two to the next
 * @returns {{largest: number, largestThatRuns: number, recommended: number}}
 */
export function findLimits(runs, runsSafely, last, useful = Infinity, stops = STOPS) {
  const runsAtAll = (batch) => batch <= last && runs(batch);
  const tried = stopsUpTo(last, stops);
  const largest = asFarAsItRuns(runsAtAll, promisedStop(runsAtAll, tried), stops);
  const isRecommended = (batch) => batch <= Math.min(largest, useful) && runsSafely(batch);
  const safe = tried.findLast(isRecommended) ?? 0;
  return {
    largest,
    largestThatRuns: lastOfWindow(runsAtAll, largest, Math.floor(stops / 2)),
    recommended: asFarAsItRuns(isRecommended, safe, stops, safe < 16 ? 1 : 8),
  };
}

/** Multiples of 8, at most `stops` from each power of two to the next. */
function stopsUpTo(last, stops) {
  const found = [];
  for (let stop = LEAST_STOP; stop <= last; stop += gapAbove(stop, stops)) found.push(stop);
  return found;
}

/** From a stop to the next; from 0 to the first. */
function gapAbove(stop, stops) {
  const powerOfTwo = stop === 0 ? 0 : 2 ** Math.floor(Math.log2(stop));
  return Math.max(LEAST_STOP, Math.floor(powerOfTwo / stops));
}

/** The largest stop that runs with all stops down to its half; 0 without one. */
function promisedStop(runs, tried) {
  let promised = 0;
  for (const stop of tried.toReversed()) {
    if (2 * stop < promised) break;
    promised = runs(stop) ? promised || stop : 0;
  }
  return promised;
}

/** From a stop that runs (or 0) towards the next, a multiple of `unit`. */
function asFarAsItRuns(runs, stop, stops, unit = 1) {
  let batch = stop;
  for (let gap = gapAbove(stop, stops); gap > unit; ) {
    const step = Math.max(unit, Math.floor(gap / EIGHTH));
    const end = batch + gap;
    while (batch + step < end && runs(batch + step)) batch += step;
    gap = step;
  }
  return batch;
}

function lastOfWindow(runs, largest, tries) {
  const width = Math.max(EIGHTH, Math.floor(largest / EIGHTH));
  const step = Math.ceil(width / tries);
  for (let batch = largest + Math.floor(width / step) * step; batch > largest; batch -= step) {
    if (runs(batch)) return batch;
  }
  return largest;
}
