/** The largest batch for which something holds; the same steps as memfit's planner/search.py. */

/**
 * The largest number from 1 to `bound` that holds; 0 when not even 1 does.
 * @param {(batch: number) => boolean} holds true up to some number and false after it
 * @param {number} bound never asked beyond it
 * @param {number} guess where to look first; the better, the fewer questions
 * @returns {number}
 */
export function largestBatch(holds, bound, guess = 1) {
  if (bound < 1) return 0;
  let [low, high] = bracket(holds, bound, Math.min(Math.max(guess, 1), bound));
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (holds(middle)) low = middle;
    else high = middle;
  }
  return low;
}

/** A number that holds (or 0) and a larger one that does not (or `bound + 1`). */
function bracket(holds, bound, guess) {
  return holds(guess) ? bracketAbove(holds, bound, guess) : bracketBelow(holds, guess);
}

function bracketAbove(holds, bound, guess) {
  let low = guess;
  for (let width = firstWidth(guess); low < bound; width *= 2) {
    const above = Math.min(low + width, bound);
    if (!holds(above)) return [low, above];
    low = above;
  }
  return [bound, bound + 1];
}

function bracketBelow(holds, guess) {
  let high = guess;
  for (let width = firstWidth(guess); high > 1; width *= 2) {
    const below = Math.max(high - width, 1);
    if (holds(below)) return [below, high];
    high = below;
  }
  return [0, high];
}

function firstWidth(guess) {
  return Math.max(1, Math.floor(guess / 32));
}
