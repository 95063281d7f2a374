/** What the Plan and Compare tabs share: the plan, the batch, the card, and the plan kept as A. */

import { useEffect, useState } from "memfit/ui/html";

const GIB = 2 ** 30;
const MIB = 2 ** 20;
const LARGEST_GIB = 4096;
/** A size of one's own stands for an Ampere card, as in memfit/catalogue.py (_custom). */
const CUSTOM = { perGib: 4, most: 84, threads: 1536, baseBytes: 30 * MIB, bytesPerThread: 2400 };

/**
 * `version` grows when exact sizes arrive; `selected` is an event; `pinned` is kept as A. Until a
 * plan is shown there is none, nor a choice: who draws one has both.
 * @type {{plan: any, planId: string|null, version: number, batch: number, choice: any,
 *   pinned: Side|null, selected: number|null}}
 */
const state = {
  plan: null,
  planId: null,
  version: 0,
  batch: 1,
  choice: null,
  pinned: null,
  selected: null,
};
const listeners = new Set();

export function planState() {
  return state;
}

/** @param {Partial<typeof state>} change */
export function setPlanState(change) {
  Object.assign(state, change);
  for (const listener of [...listeners]) listener();
}

/** The state; a component that uses it is drawn again when it changes. */
export function usePlanState() {
  const [, redraw] = useState(0);
  useEffect(() => {
    const listener = () => redraw((count) => count + 1);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, []);
  return state;
}

/**
 * Show another plan; the reader's batch and card stay when they were chosen.
 * @param {Plan} plan
 * @param {{planId?: string|null, batch?: number|null, choice?: CardChoice|null}} [kept]
 */
export function showPlan(plan, { planId = null, batch = null, choice = null } = {}) {
  setPlanState({
    plan,
    planId,
    batch: batch ?? plan.document.batch_size,
    choice: choice ?? plannedChoice(plan.document),
    version: state.version + 1,
  });
}

/** @param {number} batch any number; the nearest batch there is */
export function setBatch(batch) {
  const whole = Math.max(1, Math.min(2 ** 31, Math.round(batch)));
  if (Number.isFinite(whole) && whole !== state.batch) setPlanState({ batch: whole });
}

/** The card that a plan was made for; of a local one only what was free on it. */
function plannedChoice({ card, gpu, cards }) {
  const known = cards.find(({ key }) => key === card.key);
  const isLess = gpu && known && gpu.usable_bytes !== known.usable_bytes;
  return { key: card.key, freeBytes: isLess ? gpu.usable_bytes : null, sizeBytes: null };
}

/**
 * The card that a choice stands for.
 * @param {PlanDocument} document
 * @param {CardChoice} choice
 */
export function cardOf(document, choice) {
  if (choice.sizeBytes) return customCard(choice.sizeBytes);
  const known = [...document.cards, document.card].find((card) => card.key === choice.key);
  const card = known ?? document.card;
  return choice.freeBytes ? { ...card, usable_bytes: choice.freeBytes } : card;
}

/** As typed after --gpu. @param {CardChoice} choice */
export function gpuFlag({ key, sizeBytes }) {
  return sizeBytes ? sizeFlag(sizeBytes) : key;
}

/** A size as memfit's parse_bytes reads it, to the byte. @param {number} bytes */
export function sizeFlag(bytes) {
  const gib = gibOf(bytes);
  return bytesOf(gib) === bytes ? `${gib}GiB` : String(bytes);
}

/** GiB with three digits at most. @param {number} bytes */
export function gibOf(bytes) {
  return Number((bytes / GIB).toFixed(3));
}

/** Whether a choice is the very card that the plan's kernels are of. */
export function isPlannedCard(document, choice) {
  return !choice.sizeBytes && choice.key === document.card.key;
}

/** A number of GiB, of which three digits count, as bytes; null when it is none. */
export function parseGib(text) {
  const gib = Number(Number(text.replace(/gib|gb|g/i, "").trim()).toFixed(3));
  return gib > 0 && gib <= LARGEST_GIB ? bytesOf(gib) : null;
}

function bytesOf(gib) {
  return Math.trunc(gib * GIB); // as parse_bytes
}

function customCard(sizeBytes) {
  const asked = Math.floor((CUSTOM.perGib * sizeBytes) / GIB);
  const multiprocessors = Math.min(Math.max(asked, 1), CUSTOM.most);
  const threads = multiprocessors * CUSTOM.threads;
  const size = `${Number((sizeBytes / GIB).toPrecision(4))} GiB`;
  return {
    key: size.replace(" ", "").toLowerCase(),
    name: `GPU ${size}`,
    architecture: "Ampere",
    compute_capability: [8, 6],
    total_bytes: sizeBytes,
    usable_bytes: sizeBytes,
    context_bytes: CUSTOM.baseBytes + CUSTOM.bytesPerThread * threads,
  };
}
