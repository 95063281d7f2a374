/** The plan: where every byte goes at any batch size and what fits any card, from its document. */

import { moduleTree } from "memfit/engine/modules";
import { largestBatch } from "memfit/engine/search";
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
 * @property {{position: number, phase: string, module: string, operator: string}} peak
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
    /** @type {Map<string, number>} */
    this.largest = new Map();
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
      peak,
      timeline,
    };
  }

  /** Whether a batch runs on a card, releasing cached blocks where torch would. */
  fitsOn(card, batch) {
    const key = `${card.usable_bytes} ${card.context_bytes} ${card.total_bytes} ${batch}`;
    return remembered(this.fitting, key, () => this.fitsByReplay(card, batch));
  }

  /** The largest batch that runs on a card; 0 when none does. @param {Card} card */
  maxBatchOn(card) {
    if (this.isDocumentsCard(card)) return this.document.max_batch_size;
    const capacityBytes = card.usable_bytes - card.context_bytes;
    return this.search(`max ${card.total_bytes}`, capacityBytes, (batch) =>
      this.fitsOn(card, batch),
    );
  }

  /**
   * The largest batch whose total stays within the recipe's safety share of a card's memory, a
   * multiple of 8 from 16 up.
   * @param {Card} card
   */
  recommendedBatchOn(card) {
    if (this.isDocumentsCard(card)) return this.document.recommended_batch_size;
    const safeBytes = Math.trunc(card.usable_bytes * this.document.safety) - card.context_bytes;
    const isSafe = (batch) => this.peaksAt(batch).reservedBytes <= safeBytes;
    const batch = Math.min(this.search("safe", safeBytes, isSafe), this.maxBatchOn(card));
    return batch >= 16 ? batch - (batch % 8) : batch;
  }

  /**
   * "fits", "no", or "tight": only because the allocator gives cached memory back on the way.
   * @param {Card} card
   * @param {number} batch
   * @returns {"fits"|"tight"|"no"}
   */
  verdict(card, batch) {
    if (!this.fitsOn(card, batch)) return "no";
    const totalBytes = this.peaksAt(batch).reservedBytes + card.context_bytes;
    return totalBytes > card.usable_bytes ? "tight" : "fits";
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
    for (const answers of [this.recent, this.peaks, this.fitting, this.largest]) answers.clear();
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
    const { phase, module, operator } = timeline.describe(timeline.numberAt(position));
    const peak = { position, phase, module, operator };
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

  /** Whether the document's own, always exact answers are about this card. */
  isDocumentsCard(card) {
    const { gpu } = this.document;
    return (
      gpu !== null &&
      gpu.usable_bytes === card.usable_bytes &&
      gpu.context_bytes === card.context_bytes
    );
  }

  search(kind, capacityBytes, holds) {
    const key = `${kind} ${capacityBytes}`;
    const isAnswered = this.isAffine ? this.searchAll : this.searchTraced;
    return remembered(this.largest, key, () => isAnswered.call(this, kind, capacityBytes, holds));
  }

  /** As Plan._search of planner/plan.py: bounded by requested bytes, from a good first guess. */
  searchAll(kind, capacityBytes, holds) {
    const bound = largestBatch((batch) => this.leastBytes(batch) <= capacityBytes, MAX_BATCH);
    return largestBatch(holds, bound, this.guess(kind, capacityBytes, bound));
  }

  /** Of the batches that were traced, the largest one that can be trained with as it is. */
  searchTraced(kind, _capacityBytes, holds) {
    const isWhole = (batch) => kind.startsWith("max") || batch < 16 || batch % 8 === 0;
    return this.stops.filter((batch) => isWhole(batch) && holds(batch)).at(-1) ?? 0;
  }

  /** Where memory would reach the capacity; the same guesses as Plan._guess. */
  guess(kind, capacityBytes, bound) {
    if (bound < 2) return bound;
    if (kind.startsWith("max")) return bound - Math.floor(bound / 64);
    const half = Math.floor(bound / 2);
    const { reservedBytes: atHalf } = this.peaksAt(half);
    const { reservedBytes: atBound } = this.peaksAt(bound);
    const slope = (atBound - atHalf) / (bound - half);
    return slope > 0 ? bound - Math.trunc((atBound - capacityBytes) / slope) : bound;
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

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}
