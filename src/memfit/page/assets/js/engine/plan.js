/** The plan: where every byte goes at any batch size and what fits any card, from its document. */

import { moduleTree } from "memfit/engine/modules";
import { findLimits } from "memfit/engine/search";
import { Tape } from "memfit/engine/tape";
import { fits, peaksOf, replay } from "memfit/engine/timeline";

const MAX_BATCH = 2 ** 24; // as memfit's recipe.py
const RECENT_BATCHES = 12; // whose timelines are kept

/**
 * Where every byte goes at one batch.
 * @typedef {object} BatchPlan
 * @property {number} batch
 * @property {boolean} exact whether library workspaces are known and not interpolated
 * @property {number} peakAllocatedBytes as torch.cuda.max_memory_allocated
 * @property {number} peakReservedBytes as torch.cuda.max_memory_reserved, without any limit
 * @property {number} totalBytes reserved and the CUDA context
 * @property {Parts} parts requested bytes at the peak; they sum to totalBytes
 * @property {Parts} partsMost bytes of each part when it is largest, each at its own instant
 * @property {{position: number, phase: string, module: string, operator: string, place: string,
 *   isEvaluation: boolean}} peak
 * @property {Timeline} timeline
 */

/** @typedef {{timeline: Timeline, parts: Parts, peak: BatchPlan["peak"]}} Played */

/** Open a plan document. @returns {Plan} */
export function openPlan(document) {
  return new Plan(document);
}

/** A plan's arithmetic. */
export class Plan {
  /** @param {PlanDocument} document */
  constructor(document) {
    this.document = document;
    this.settings = document.allocator;
    this.isAffine = document.is_affine;
    this.tape = this.isAffine && document.tape ? new Tape(document.tape) : null;
    this.traced = new Map();
    for (const [batch, columns] of Object.entries(document.traced)) {
      this.traced.set(Number(batch), new Tape(columns));
    }
    /** What was played, by batch, the latest last. @type {Map<number, Played>} */
    this.recent = new Map();
    /** @type {Map<number, {allocatedBytes: number, reservedBytes: number}>} */
    this.peaks = new Map();
    /** @type {Map<string, boolean>} */
    this.fitting = new Map();
  }

  /** Batches that are exact without asking further, ascending. @returns {number[]} */
  get stops() {
    const stops = new Set([...this.traced.keys(), ...(this.tape?.stops ?? [])]);
    return [...stops].sort((a, b) => a - b);
  }

  /**
   * Take exact library workspaces for a batch.
   * @param {number} batch
   * @param {ArrayLike<number>} bytes one number for each entry of tape.ruled
   */
  setExact(batch, bytes) {
    this.tape?.setExact(batch, bytes);
    this.forget();
  }

  /**
   * Take a tape that was traced at a batch.
   * @param {number} batch
   * @param {TapeColumns} columns
   */
  addTraced(batch, columns) {
    this.traced.set(batch, new Tape(columns));
    this.forget();
  }

  /** Whether nothing is known but the one batch at which a script ran. */
  get isFixed() {
    return Boolean(this.document.script) && !this.isAffine;
  }

  /** Whether a batch can be answered: any one, or only those that were traced. */
  knows(batch) {
    return this.isAffine || this.traced.has(batch);
  }

  /** Whether every byte at a batch is as the command would say. @param {number} batch */
  isExact(batch) {
    return this.traced.has(batch) || Boolean(this.tape?.isExact(batch));
  }

  /**
   * Where every byte goes at a batch.
   * @param {number} batch
   * @param {Card} [card] whose CUDA context is counted; the document's own when omitted
   * @returns {BatchPlan}
   * @throws {RangeError} the batch was not traced and the plan is not affine
   */
  at(batch, card = this.document.card) {
    const { timeline, parts: requested, peak } = this.playedAt(batch);
    const { peakAllocatedBytes, peakReservedBytes } = timeline;
    const cache = peakReservedBytes - sum(Object.values(requested));
    return {
      batch,
      exact: this.isExact(batch),
      peakAllocatedBytes,
      peakReservedBytes,
      totalBytes: peakReservedBytes + card.context_bytes,
      parts: { ...requested, cache, context: card.context_bytes },
      partsMost: { ...timeline.partsMost, context: card.context_bytes },
      peak,
      timeline,
    };
  }

  /** Whether a batch runs on a card, releasing cached blocks where torch would; as proved if it was. */
  fitsOn(card, batch) {
    const proof = this.document.script?.proof;
    if (proof && proof.batch_size === batch && this.isDocumentsCard(card)) return proof.fits;
    const key = `${card.usable_bytes} ${card.context_bytes} ${card.total_bytes} ${batch}`;
    return remembered(this.fitting, key, () => this.fitsByReplay(card, batch));
  }

  /** Whether it runs with the recipe's `safety` of the card's memory, as a recommended one does. */
  fitsSafelyOn(card, batch) {
    const { safety } = this.document;
    const usable_bytes = Math.trunc(card.usable_bytes * safety);
    const total_bytes = Math.trunc(card.total_bytes * safety);
    return this.fitsOn({ ...card, usable_bytes, total_bytes }, batch);
  }

  /**
   * What runs on a card: see engine/search.js.
   * @param {Card} card
   * @returns {Limits|null} null where nothing is known of other batches
   */
  limitsOn(card) {
    if (this.isFixed) return null;
    if (this.isDocumentsCard(card)) return statedLimits(this.document);
    const runs = (batch) => this.fitsOn(card, batch);
    const runsSafely = (batch) => this.fitsSafelyOn(card, batch);
    if (!this.isAffine) return this.limitsOfTraced(runs, runsSafely);
    return findLimits(runs, runsSafely, this.lastBatch(card), this.mostUseful);
  }

  /**
   * "fits", "no", or "tight": only because the allocator gives cached memory back on the way,
   * and not with `safety` of the card's memory.
   * @param {Card} card
   * @param {number} batch
   * @returns {"fits"|"tight"|"no"}
   */
  verdict(card, batch) {
    if (!this.fitsOn(card, batch)) return "no";
    const totalBytes = this.peaksAt(batch).reservedBytes + card.context_bytes;
    const isTight = totalBytes > card.usable_bytes && !this.fitsSafelyOn(card, batch);
    return isTight ? "tight" : "fits";
  }

  /**
   * Memory against the batch.
   * @param {Card} card whose CUDA context is counted
   * @param {{from: number, to: number, points: number}} range
   * @returns {{batch: number, neededBytes: number, totalBytes: number}[]}
   */
  curve(card, { from, to, points }) {
    return this.batchesBetween(from, to, points).map((batch) => {
      const { allocatedBytes, reservedBytes } = this.peaksAt(batch);
      const neededBytes = allocatedBytes + card.context_bytes;
      return { batch, neededBytes, totalBytes: reservedBytes + card.context_bytes };
    });
  }

  /**
   * Bytes kept for backward, module by module.
   * @returns {ModuleNode}
   */
  moduleTree(batch) {
    return moduleTree(this.playedAt(batch).timeline, this.document.model.name);
  }

  // -- how ---------------------------------------------------------------------------------------

  /** Drop every answer. */
  forget() {
    for (const answers of [this.recent, this.peaks, this.fitting]) answers.clear();
  }

  tapeAt(batch) {
    const tape = this.traced.get(batch) ?? this.tape;
    if (tape === null) throw new RangeError(`batch ${batch} was not traced`);
    return tape;
  }

  playedAt(batch) {
    const played = this.recent.get(batch) ?? this.play(batch);
    this.recent.delete(batch);
    this.recent.set(batch, played);
    for (const old of [...this.recent.keys()].slice(0, -RECENT_BATCHES)) this.recent.delete(old);
    return played;
  }

  play(batch) {
    const tape = this.tapeAt(batch);
    const timeline = replay(tape, { batch, settings: this.settings });
    const position = timeline.peakPosition;
    const { phase, module, operator, place } = timeline.describe(timeline.numberAt(position));
    const isEvaluation = position >= tape.evaluation;
    const peak = { position, phase, module, operator, place, isEvaluation };
    this.peaks.set(batch, {
      allocatedBytes: timeline.peakAllocatedBytes,
      reservedBytes: timeline.peakReservedBytes,
    });
    return { timeline, parts: timeline.partsAt(position), peak };
  }

  peaksAt(batch) {
    return remembered(this.peaks, batch, () => {
      const tape = this.tapeAt(batch);
      return peaksOf(tape, tape.sizesAt(batch), this.settings);
    });
  }

  /** Less than any allocator can do with; the arithmetic's also where a trace is known. */
  leastBytes(batch) {
    return (this.tape ?? this.tapeAt(batch)).leastBytesAt(batch);
  }

  fitsByReplay(card, batch) {
    const capacityBytes = card.usable_bytes - card.context_bytes;
    if (this.leastBytes(batch) > capacityBytes) return false;
    const isLimited = this.settings.per_process_memory_fraction !== 1;
    const known = this.peaks.get(batch);
    if (!isLimited && known !== undefined && known.reservedBytes <= capacityBytes) return true;
    const tape = this.tapeAt(batch);
    return fits(tape, tape.sizesAt(batch), capacityBytes, this.settings, card.total_bytes);
  }

  /** No larger batch is recommended, whatever memory holds. */
  get mostUseful() {
    return this.document.useful_batch?.batch_size ?? Infinity;
  }

  /** Whether the document's own, always exact answers are about this card. */
  isDocumentsCard(card) {
    const { gpu } = this.document;
    return (
      gpu !== null &&
      gpu.usable_bytes === card.usable_bytes &&
      gpu.context_bytes === card.context_bytes
    );
  }

  /** No larger batch runs: its tensors alone are more than the card has. */
  lastBatch(card) {
    const capacityBytes = card.usable_bytes - card.context_bytes;
    let last = 1;
    while (last < MAX_BATCH && this.leastBytes(last) <= capacityBytes) last *= 2;
    return last;
  }

  /** Of the batches that were traced, the largest ones that can be trained with as they are. */
  limitsOfTraced(runs, runsSafely) {
    const isWhole = (batch) => batch <= this.mostUseful && (batch < 16 || batch % 8 === 0);
    const largest = this.stops.findLast(runs) ?? 0;
    const recommended = this.stops.findLast((batch) => isWhole(batch) && runsSafely(batch)) ?? 0;
    return { largest, largestThatRuns: largest, recommended };
  }

  batchesBetween(from, to, points) {
    if (!this.isAffine) return this.stops.filter((batch) => from <= batch && batch <= to);
    const gaps = Math.min(points, to - from + 1) - 1;
    if (gaps < 1) return [from];
    const batchAt = (gap) => from + Math.floor(((to - from) * gap) / gaps);
    return Array.from({ length: gaps + 1 }, (_, gap) => batchAt(gap));
  }
}

/**
 * An answer that is worked out once.
 * @template Key, Answer
 * @param {Map<Key, Answer>} answers
 * @param {Key} key
 * @param {() => Answer} work
 * @returns {Answer}
 */
function remembered(answers, key, work) {
  let answer = answers.get(key);
  if (answer === undefined) {
    answer = work();
    answers.set(key, answer);
  }
  return answer;
}

/** What the command said of the document's own card; 0 without one. @returns {Limits} */
function statedLimits(document) {
  return {
    largest: document.max_batch_size ?? 0,
    largestThatRuns: document.largest_that_runs ?? 0,
    recommended: document.recommended_batch_size ?? 0,
  };
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}
