/** A plan at one batch on one card: what the verdict and its numbers are made of. */

import { useEffect, useMemo, useState } from "memfit/ui/html";

const SLICE_MS = 12;

/**
 * @param {Plan} plan
 * @param {Card} card
 * @param {number} batch
 */
export function viewAt(plan, card, batch) {
  return { ...plan.at(batch, card), card, verdict: plan.verdict(card, batch) };
}

/** @typedef {{largest: number, largestThatRuns: number, recommended: number}} Limits */

/**
 * The largest and the recommended batch on a card; null while they are worked out, and where
 * nothing is known of other batches.
 * @returns {Limits|null}
 */
export function useLimits(plan, card, version) {
  const stated = useMemo(
    () => (plan?.isDocumentsCard(card) ? plan.limitsOn(card) : null),
    [plan, card],
  );
  const [found, setFound] = useState(
    /** @type {{plan: Plan, card: Card, limits: Limits}|null} */ (null),
  );
  useEffect(() => {
    setFound(null);
    if (!plan || plan.isFixed || stated) return undefined;
    let timer = 0;
    const work = () => {
      const limits = limitsOn(inSlices(plan), card);
      if (limits) setFound({ plan, card, limits });
      else timer = setTimeout(work, 0);
    };
    timer = setTimeout(work, 0);
    return () => clearTimeout(timer);
  }, [plan, card, version]);
  return stated ?? (found && found.plan === plan && found.card === card ? found.limits : null);
}

/** A question was left half answered, so that the page can draw. */
class Paused extends Error {}

/**
 * The plan, which pauses before another replay when a slice of time is over. It keeps every
 * replay's answer, so asked again it goes on where it was.
 */
function inSlices(plan) {
  const until = performance.now() + SLICE_MS;
  let isFirst = true; // one replay a slice, however long it takes
  const pause = () => {
    if (!isFirst && performance.now() > until) throw new Paused();
    isFirst = false;
  };
  return Object.assign(Object.create(plan), {
    fitsByReplay(...asked) {
      pause();
      return plan.fitsByReplay(...asked);
    },
    peaksAt(batch) {
      if (!plan.peaks.has(batch)) pause();
      return plan.peaksAt(batch);
    },
  });
}

/** null when it was paused. */
function limitsOn(plan, card) {
  try {
    return plan.limitsOn(card);
  } catch (problem) {
    if (problem instanceof Paused) return null;
    throw problem;
  }
}
