/**
 * The pieces of the caching allocator: blocks, free lists, and the device that gives memory.
 *
 * The rules, their sources in PyTorch and the names are those of memfit's memory/blocks.py.
 */

const MIB = 1024 ** 2;

export const MIN_BLOCK_BYTES = 512;
export const SMALL_BYTES = MIB; // the largest request of the small pool
export const SMALL_SEGMENT_BYTES = 2 * MIB;
export const MIN_LARGE_BYTES = 10 * MIB; // from here a segment is for one request
export const ROUND_LARGE_BYTES = 2 * MIB;

// States of a block.
export const LIVE = 0;
export const FREE = 1;
export const UNMAPPED = 2; // addresses of an expandable segment without memory behind them
export const GONE = 3; // merged into a neighbour: no handle may use it

/**
 * The least multiple of the unit that is not less.
 * @param {number} sizeBytes
 * @param {number} unitBytes
 * @returns {number}
 */
export function roundUp(sizeBytes, unitBytes) {
  const rest = sizeBytes % unitBytes; // exact below 2^53, where a quotient need not be
  return rest === 0 ? sizeBytes : sizeBytes - rest + unitBytes;
}

/** A stretch of a segment; what the allocator hands out. */
export class Block {
  /**
   * @param {number} address first byte; 0 for a request of zero bytes
   * @param {number} sizeBytes the whole stretch
   * @param {number} state LIVE, FREE, UNMAPPED or GONE
   * @param {FreeList} home the list it returns to
   * @param {Block|null} preceding its left neighbour in the segment
   */
  constructor(address, sizeBytes, state, home, preceding = null) {
    this.address = address;
    this.sizeBytes = sizeBytes;
    this.requestedBytes = 0;
    this.state = state;
    this.home = home;
    this.preceding = preceding;
    this.following = null;
    this.freedAt = 0;
  }

  /** Keep the first `sizeBytes`; the rest becomes a block of its own, in no list. */
  cut(sizeBytes, state) {
    const restBytes = this.sizeBytes - sizeBytes;
    const rest = new Block(this.address + sizeBytes, restBytes, state, this.home, this);
    rest.following = this.following;
    if (rest.following !== null) rest.following.preceding = rest;
    this.following = rest;
    this.sizeBytes = sizeBytes;
    return rest;
  }

  /** Take over the next block, which must be out of every list. */
  absorbFollowing() {
    const gone = this.following;
    this.sizeBytes += gone.sizeBytes;
    this.following = gone.following;
    if (gone.following !== null) gone.following.preceding = this;
    gone.state = GONE;
  }
}

/** The free and the unmapped blocks of one pool on one stream. */
export class FreeList {
  /**
   * @param {boolean} isSmall the small pool, or the large one
   * @param {number} minRemainderBytes a block is split when at least this much remains ...
   * @param {number} splitBelowBytes ... and the request is smaller than this
   */
  constructor(isSmall, minRemainderBytes, splitBelowBytes) {
    this.isSmall = isSmall;
    this.minRemainderBytes = minRemainderBytes;
    this.splitBelowBytes = splitBelowBytes;
    this.blocks = []; // free, by (size, address)
    this.unmapped = []; // by address
  }

  /** The index of the first free block that is not before (size, address). */
  lowerBound(sizeBytes, address) {
    const { blocks } = this;
    let low = 0;
    let high = blocks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const block = blocks[middle];
      const isBefore =
        block.sizeBytes < sizeBytes || (block.sizeBytes === sizeBytes && block.address < address);
      if (isBefore) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Enter a free block. */
  add(block) {
    this.blocks.splice(this.lowerBound(block.sizeBytes, block.address), 0, block);
  }

  /** Take a free block out. */
  remove(block) {
    this.blocks.splice(this.lowerBound(block.sizeBytes, block.address), 1);
  }

  /** Enter an unmapped block. */
  addUnmapped(block) {
    const { unmapped } = this;
    let index = unmapped.length;
    while (index > 0 && unmapped[index - 1].address > block.address) index -= 1;
    unmapped.splice(index, 0, block);
  }

  /** Take an unmapped block out. */
  removeUnmapped(block) {
    this.unmapped.splice(this.unmapped.indexOf(block), 1);
  }

  /** The free blocks that are a whole segment: only these can go back to the device. */
  wholeSegments() {
    return this.blocks.filter((block) => block.preceding === null && block.following === null);
  }
}

/** What the device can give this process; addresses ascend and are not used twice. */
export class DeviceMemory {
  /** @param {number} capacityBytes the most that can be taken */
  constructor(capacityBytes) {
    this.capacityBytes = capacityBytes;
    this.takenBytes = 0;
    this.peakTakenBytes = 0;
    this.nextAddress = ROUND_LARGE_BYTES; // not 0, which is no address
  }

  /** Whether the device had `sizeBytes` left; they are taken then. */
  take(sizeBytes) {
    const takenBytes = this.takenBytes + sizeBytes;
    if (takenBytes > this.capacityBytes) return false;
    this.takenBytes = takenBytes;
    if (takenBytes > this.peakTakenBytes) this.peakTakenBytes = takenBytes;
    return true;
  }

  /** Return a range to the device. */
  giveBack(sizeBytes) {
    this.takenBytes -= sizeBytes;
  }

  /** An address with `sizeBytes` from there on that no segment ever had. */
  place(sizeBytes, alignmentBytes = 1) {
    const address = roundUp(this.nextAddress, alignmentBytes);
    this.nextAddress = address + sizeBytes;
    return address;
  }
}
