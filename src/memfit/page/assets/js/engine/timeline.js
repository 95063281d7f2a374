/** A tape replayed: allocated and reserved bytes, and what they are used for, at every instant. */

import { CachingAllocator, DEFAULT_SETTINGS, OutOfDeviceMemory } from "memfit/engine/allocator";
import { MaxPyramid } from "memfit/engine/pyramid";

const GROUP = 64; // allocations that are skipped together when all of them are gone

/**
 * Where a replay against a capacity stopped.
 * @typedef {object} OutOfMemoryInstant
 * @property {number} position
 * @property {number} number of the allocation
 * @property {number} requestedBytes
 * @property {number} allocatedBytes
 * @property {number} reservedBytes
 * @property {number} capacityBytes
 * @property {number} largestFreeBlockBytes
 */

/** Bytes at every instant of a tape; one entry an event. */
export class Timeline {
  /**
   * @param {Tape} tape
   * @param {Float64Array} sizes requested bytes by allocation number
   * @param {{allocated: Float64Array, reserved: Float64Array, retries: number,
   *   outOfMemory: OutOfMemoryInstant|null}} replayed after each event that ran
   * @param {number} batch that shapes are of
   */
  constructor(tape, sizes, replayed, batch) {
    this.tape = tape;
    this.sizes = sizes;
    this.batch = batch;
    this.allocated = replayed.allocated;
    this.reserved = replayed.reserved;
    this.outOfMemory = replayed.outOfMemory;
    this.retries = replayed.retries;
    this.count = replayed.allocated.length;
    this.parts = tape.parts;
    this.marks = tape.marks.filter((mark) => mark.position <= this.count);
    this.peakAllocatedBytes = largest(this.allocated);
    this.peakReservedBytes = largest(this.reserved);
    /** The first instant at which most bytes are allocated. */
    this.peakPosition = Math.max(0, this.allocated.indexOf(this.peakAllocatedBytes));
    // worked out when they are first asked for
    /** @type {Float64Array[]|undefined} */
    this.partBytesOnce = undefined;
    /** @type {Parts|undefined} */
    this.partsMostOnce = undefined;
    /** @type {Uint32Array|undefined} */
    this.lastFreed = undefined;
    /** @type {MaxPyramid[]|undefined} */
    this.peaks = undefined;
  }

  /** Requested bytes after each event, one array a part of `parts`. @returns {Float64Array[]} */
  get partBytes() {
    const rows = this.partBytesOnce ?? partBytesOf(this);
    this.partBytesOnce = rows;
    return rows;
  }

  /** Bytes of each part, and of the cache, when it is largest, each at its own instant. */
  get partsMost() {
    this.partsMostOnce ??= partsMostOf(this);
    return this.partsMostOnce;
  }

  /** Phases of the step as stretches of events. @returns {{phase, step, from, to}[]} */
  get bands() {
    const ends = [...this.marks.slice(1).map((mark) => mark.position), this.count];
    const bands = this.marks.map(({ phase, step, position }, index) => ({
      phase,
      step,
      from: position,
      to: ends[index],
    }));
    return bands.filter((band) => band.from < band.to);
  }

  /**
   * Numbers of the allocations alive after an event, oldest first.
   * @param {number} position
   * @returns {number[]}
   */
  liveAt(position) {
    const { allocatedAt, freedAt } = this.tape;
    const last = Math.min(position, this.count - 1);
    const lastFreed = this.lastFreed ?? lastOfGroups(freedAt);
    this.lastFreed = lastFreed;
    const live = [];
    lastFreed.forEach((groupFreed, group) => {
      if (groupFreed <= last) return;
      const end = Math.min((group + 1) * GROUP, freedAt.length);
      for (let number = group * GROUP; number < end; number += 1) {
        if (allocatedAt[number] <= last && freedAt[number] > last) live.push(number);
      }
    });
    return live.sort((a, b) => allocatedAt[a] - allocatedAt[b]);
  }

  /**
   * Requested bytes alive after an event, by name of the part.
   * @returns {Parts}
   */
  partsAt(position) {
    const bytes = this.parts.map(() => 0);
    for (const number of this.liveAt(position)) bytes[this.tape.part[number]] += this.sizes[number];
    return Object.fromEntries(this.parts.map((part, index) => [part, bytes[index]]));
  }

  /** Everything about an allocation. @param {number} number */
  describe(number) {
    const { tape } = this;
    const freedAt = tape.freedAt[number];
    return {
      number,
      sizeBytes: this.sizes[number],
      part: tape.parts[tape.part[number]],
      phase: tape.phases[tape.phase[number]],
      step: tape.step[number],
      operator: tape.operatorOf(number),
      module: tape.moduleOf(number),
      place: tape.placeOf(number),
      shape: tape.shapeAt(number, this.batch),
      dtype: tape.strings[tape.dtype[number]],
      allocatedAt: tape.allocatedAt[number],
      freedAt: freedAt < this.count ? freedAt : null,
    };
  }

  /** The number of the allocation that an event makes or frees. @param {number} position */
  numberAt(position) {
    const event = this.tape.events[position];
    return event >= 0 ? event : ~event;
  }

  /**
   * Columns for drawing: of each the instant of most allocated bytes, so that no peak is lost.
   * @param {number} from the first event
   * @param {number} to one beyond the last
   * @param {number} width columns at most
   * @returns {{positions: Uint32Array, allocated: Float64Array, reserved: Float64Array,
   *   parts: Float64Array[]}} reserved is the most within the column
   */
  columns(from, to, width) {
    const first = Math.max(0, Math.floor(from));
    const span = Math.max(0, Math.min(this.count, Math.ceil(to)) - first);
    const count = Math.min(span, Math.max(1, Math.floor(width)));
    this.peaks ??= [new MaxPyramid(this.allocated), new MaxPyramid(this.reserved)];
    const [allocatedPeaks, reservedPeaks] = this.peaks;
    const positions = new Uint32Array(count);
    const reserved = new Float64Array(count);
    for (let column = 0; column < count; column += 1) {
      const start = first + Math.floor((column * span) / count);
      const end = first + Math.floor(((column + 1) * span) / count);
      positions[column] = allocatedPeaks.indexOfMax(start, end);
      reserved[column] = this.reserved[reservedPeaks.indexOfMax(start, end)];
    }
    const at = (values) => Float64Array.from(positions, (position) => values[position]);
    return { positions, allocated: at(this.allocated), reserved, parts: this.partBytes.map(at) };
  }
}

/**
 * Replay a tape through a model of PyTorch's caching allocator.
 * @param {Tape} tape
 * @param {{batch?: number, settings?: AllocatorSettings,
 *   capacityBytes?: number|null}} [options] the batch is 1 and nothing is limited by default
 * @returns {Timeline}
 */
export function replay(tape, options = {}) {
  const { batch = 1, settings = DEFAULT_SETTINGS, capacityBytes = null } = options;
  const sizes = tape.sizesAt(batch);
  const count = tape.events.length;
  const allocated = new Float64Array(count);
  const reserved = new Float64Array(count);
  const allocator = new CachingAllocator(settings, capacityBytes);
  const outOfMemory = run(tape, sizes, allocator, (position) => {
    allocated[position] = allocator.allocatedBytes;
    reserved[position] = allocator.reservedBytes;
  });
  const ran = outOfMemory === null ? count : outOfMemory.position;
  const replayed = {
    allocated: allocated.subarray(0, ran),
    reserved: reserved.subarray(0, ran),
    outOfMemory,
    retries: allocator.retryCount,
  };
  return new Timeline(tape, sizes, replayed, batch);
}

/**
 * The peaks of a replay without a limit, when nothing else is asked.
 * @returns {{allocatedBytes: number, reservedBytes: number}}
 */
export function peaksOf(tape, sizes, settings) {
  const allocator = new CachingAllocator(settings);
  run(tape, sizes, allocator, () => {});
  const { peakAllocatedBytes: allocatedBytes, peakReservedBytes: reservedBytes } = allocator;
  return { allocatedBytes, reservedBytes };
}

/**
 * Whether a tape runs within a capacity, releasing cached blocks where torch would.
 * @param {number} deviceTotalBytes of which the settings may allow a share
 */
export function fits(tape, sizes, capacityBytes, settings, deviceTotalBytes) {
  const allocator = new CachingAllocator(settings, capacityBytes, deviceTotalBytes);
  return run(tape, sizes, allocator, () => {}) === null;
}

/** Play the events; where it stopped, or null. */
function run(tape, sizes, allocator, after) {
  const { events } = tape;
  const blocks = new Array(sizes.length);
  for (let position = 0; position < events.length; position += 1) {
    const event = events[position];
    if (event < 0) {
      allocator.free(blocks[~event]);
    } else {
      try {
        blocks[event] = allocator.allocate(sizes[event]);
      } catch (error) {
        if (!(error instanceof OutOfDeviceMemory)) throw error;
        return { ...error.facts, position, number: event };
      }
    }
    after(position);
  }
  return null;
}

function partBytesOf({ tape, sizes, count, parts }) {
  const rows = parts.map(() => new Float64Array(count));
  const live = new Float64Array(parts.length);
  for (let position = 0; position < count; position += 1) {
    const event = tape.events[position];
    const number = event >= 0 ? event : ~event;
    live[tape.part[number]] += event >= 0 ? sizes[number] : -sizes[number];
    for (let part = 0; part < rows.length; part += 1) rows[part][position] = live[part];
  }
  return rows;
}

function partsMostOf({ tape, sizes, count, parts, reserved }) {
  const live = parts.map(() => 0);
  const most = parts.map(() => 0);
  let requested = 0;
  let cache = 0;
  for (let position = 0; position < count; position += 1) {
    const event = tape.events[position];
    const number = event >= 0 ? event : ~event;
    const part = tape.part[number];
    const size = event >= 0 ? sizes[number] : -sizes[number];
    live[part] += size;
    requested += size;
    most[part] = Math.max(most[part], live[part]);
    cache = Math.max(cache, reserved[position] - requested);
  }
  return { ...Object.fromEntries(parts.map((part, index) => [part, most[index]])), cache };
}

/** When the last allocation of each group is freed. */
function lastOfGroups(freedAt) {
  const last = new Uint32Array(Math.ceil(freedAt.length / GROUP));
  freedAt.forEach((position, number) => {
    const group = Math.floor(number / GROUP);
    last[group] = Math.max(last[group], position);
  });
  return last;
}

function largest(values) {
  return values.reduce((most, value) => Math.max(most, value), 0);
}
