/** The tape: what was allocated and freed, in order; sizes and shapes at any batch. */

const NEVER = 2 ** 32 - 1; // an event that the tape does not have

/** A decoded tape. */
export class Tape {
  /** @param {TapeColumns} columns */
  constructor(columns) {
    this.parts = columns.parts;
    this.phases = columns.phases;
    this.strings = columns.strings;
    this.shapes = columns.shapes;
    this.part = Uint8Array.from(columns.part);
    this.phase = Uint8Array.from(columns.phase);
    this.step = Int32Array.from(columns.step);
    this.operator = Uint32Array.from(columns.operator);
    this.module = Uint32Array.from(columns.module);
    this.dtype = Uint32Array.from(columns.dtype);
    this.place = columns.place ? Uint32Array.from(columns.place) : null;
    this.shape = Uint32Array.from(columns.shape);
    this.constant = Float64Array.from(columns.constant);
    this.slope = Float64Array.from(columns.slope);
    this.square = columns.square ? Float64Array.from(columns.square) : null;
    this.events = Int32Array.from(columns.events);
    this.timesUs = columns.times_us ? Float64Array.from(columns.times_us) : null;
    this.marks = columns.marks.map(([position, step, phase]) => ({
      position,
      step,
      phase: columns.phases[phase],
    }));
    this.evaluation = columns.evaluation ?? Infinity; // where the validation pass begins
    this.ruled = columns.ruled;
    this.exactBytes = new Map(); // batch -> bytes of each ruled entry, as the server said
    const { allocatedAt, freedAt } = instantsOf(this.events, this.allocationCount);
    this.allocatedAt = allocatedAt;
    this.freedAt = freedAt;
  }

  /** How many allocations there are. */
  get allocationCount() {
    return this.constant.length;
  }

  /** Batches whose library workspaces are known to the byte, ascending. */
  get stops() {
    const stops = new Set([...this.ruled.batches, ...this.exactBytes.keys()]);
    return [...stops].sort((a, b) => a - b);
  }

  /** Whether every size at the batch is exact. @param {number} batch */
  isExact(batch) {
    const { batches, entries } = this.ruled;
    return entries.length === 0 || batches.includes(batch) || this.exactBytes.has(batch);
  }

  /**
   * Replace interpolated library workspaces.
   * @param {number} batch
   * @param {ArrayLike<number>} bytes one number for each ruled entry
   */
  setExact(batch, bytes) {
    const wanted = this.ruled.entries.length;
    if (bytes.length !== wanted) throw new RangeError(`${bytes.length} sizes, not ${wanted}`);
    this.exactBytes.set(batch, Array.from(bytes));
  }

  /**
   * Requested bytes of every allocation, by number.
   * @param {number} batch
   * @returns {Float64Array}
   */
  sizesAt(batch) {
    const sizes = this.leastSizesAt(batch);
    this.ruled.entries.forEach((entry, index) => {
      const bytes = this.ruledBytes(index, batch);
      for (const number of entry.allocations) sizes[number] = bytes;
    });
    return sizes;
  }

  /**
   * The same without what library workspaces would add: quicker, and never more.
   * @param {number} batch
   * @returns {Float64Array}
   */
  leastSizesAt(batch) {
    const { constant, slope, square } = this;
    const sizes = new Float64Array(constant.length);
    for (let n = 0; n < sizes.length; n += 1) sizes[n] = constant[n] + slope[n] * batch;
    if (square) for (let n = 0; n < sizes.length; n += 1) sizes[n] += square[n] * batch * batch;
    return sizes;
  }

  /**
   * The most requested bytes alive at once: less than any allocator can do with.
   * @param {number} batch
   * @returns {number}
   */
  leastBytesAt(batch) {
    const { events } = this;
    const sizes = this.leastSizesAt(batch);
    let live = 0;
    let peak = 0;
    for (let position = 0; position < events.length; position += 1) {
      const event = events[position];
      if (event >= 0) {
        live += sizes[event];
        if (live > peak) peak = live;
      } else {
        live -= sizes[~event];
      }
    }
    return peak;
  }

  /** The shape of an allocation's tensor. @returns {number[]} */
  shapeAt(number, batch) {
    return this.shapes[this.shape[number]].map(
      ([constant, slope, square = 0]) => constant + (slope + square * batch) * batch,
    );
  }

  /** Path of the module that an allocation belongs to; empty outside of modules. */
  moduleOf(number) {
    return this.strings[this.module[number]];
  }

  /** Operator that made an allocation. */
  operatorOf(number) {
    return this.strings[this.operator[number]];
  }

  /** The user's file and line that made an allocation; empty where none is known. */
  placeOf(number) {
    return this.place ? this.strings[this.place[number]] : "";
  }

  /** Bytes of a ruled entry: as the server said, as tabled, or on a line between stops. */
  ruledBytes(index, batch) {
    const exact = this.exactBytes.get(batch);
    if (exact !== undefined) return exact[index];
    return interpolated(this.ruled.batches, this.ruled.entries[index].bytes, batch);
  }
}

/** When each allocation was made and freed, by number. */
function instantsOf(events, count) {
  const allocatedAt = new Uint32Array(count).fill(NEVER);
  const freedAt = new Uint32Array(count).fill(NEVER);
  events.forEach((event, position) => {
    if (event >= 0) allocatedAt[event] = position;
    else freedAt[~event] = position;
  });
  return { allocatedAt, freedAt };
}

/** The value at `batch` of a table: between stops on a line, beyond them on the last one. */
function interpolated(batches, values, batch) {
  if (batches.length === 1) return values[0];
  const after = firstNotBelow(batches, batch);
  if (batches[after] === batch) return values[after];
  const right = Math.min(Math.max(after, 1), batches.length - 1);
  const left = right - 1;
  const share = (batch - batches[left]) / (batches[right] - batches[left]);
  return Math.max(0, Math.round(values[left] + share * (values[right] - values[left])));
}

/** The index of the first of ascending numbers that is not below `value`. */
function firstNotBelow(numbers, value) {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (numbers[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
