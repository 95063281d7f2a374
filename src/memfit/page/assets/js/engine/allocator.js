/**
 * PyTorch's CUDA caching allocator on whole numbers: what is allocated, what is reserved, and why.
 *
 * The rules and their sources in PyTorch are those of memfit's memory/allocator.py, to the byte;
 * tests/page/test_arithmetic.py holds the two against each other.
 */

import {
  Block,
  DeviceMemory,
  FREE,
  FreeList,
  GONE,
  LIVE,
  MIN_BLOCK_BYTES,
  MIN_LARGE_BYTES,
  ROUND_LARGE_BYTES,
  roundUp,
  SMALL_BYTES,
  SMALL_SEGMENT_BYTES,
} from "memfit/engine/blocks";
import { ExpandableSegments } from "memfit/engine/expandable";

// Address space of expandable segments when nobody said how large the device is.
const UNKNOWN_DEVICE_BYTES = 2 ** 44;

// What a request of zero bytes belongs to: torch gives it no memory and no block.
const NOWHERE = new FreeList(true, Infinity, Infinity);

/** @type {AllocatorSettings} */
export const DEFAULT_SETTINGS = Object.freeze({
  expandable_segments: false,
  max_split_size_bytes: null,
  roundup_power2_divisions: null,
  garbage_collection_threshold: 0,
  large_segment_size_bytes: 20 * 1024 ** 2,
  per_process_memory_fraction: 1,
  max_non_split_rounding_bytes: null,
});

/** The device has no room for a request, even after all cached memory was given back. */
export class OutOfDeviceMemory extends Error {
  /**
   * @param {{requestedBytes: number, allocatedBytes: number, reservedBytes: number,
   *   capacityBytes: number, largestFreeBlockBytes: number}} facts
   */
  constructor(facts) {
    super(`${facts.requestedBytes} bytes requested, ${facts.reservedBytes} reserved`);
    this.name = "OutOfDeviceMemory";
    this.facts = facts;
  }
}

/** A device's caching allocator. */
export class CachingAllocator {
  /**
   * @param {AllocatorSettings} settings
   * @param {number|null} capacityBytes what cudaMalloc can give this process; null for no limit
   * @param {number|null} deviceTotalBytes the device's whole memory; as the capacity when null
   */
  constructor(settings = DEFAULT_SETTINGS, capacityBytes = null, deviceTotalBytes = null) {
    const totalBytes = deviceTotalBytes ?? capacityBytes;
    this.settings = settings;
    this.allocatedBytes = 0;
    this.requestedBytes = 0;
    this.peakAllocatedBytes = 0;
    this.retryCount = 0;
    this.device = new DeviceMemory(capacityBytes ?? Infinity);
    this.small = new Map(); // free lists by stream
    this.large = new Map();
    this.largeSearches = 0;
    this.divisions = settings.roundup_power2_divisions;
    this.maxSplitBytes = settings.max_split_size_bytes || Infinity;
    const limits = limitsOf(settings, totalBytes);
    this.limitBytes = limits.limitBytes;
    this.collectAboveBytes = limits.collectAboveBytes;
    this.expandable = null;
    if (settings.expandable_segments) {
      const spanBytes = totalBytes ?? UNKNOWN_DEVICE_BYTES;
      const pageBytes = settings.large_segment_size_bytes;
      this.expandable = new ExpandableSegments(this.device, spanBytes, pageBytes);
    }
  }

  /** Taken from the device (torch.cuda.memory_reserved). */
  get reservedBytes() {
    return this.device.takenBytes;
  }

  /** The highest `reservedBytes` so far. */
  get peakReservedBytes() {
    return this.device.peakTakenBytes;
  }

  /**
   * A block for `sizeBytes`.
   * @param {number} sizeBytes the request; nothing is allocated for 0
   * @param {number} stream blocks that were freed on another stream are not used
   * @returns {Block}
   * @throws {OutOfDeviceMemory} no room even with all cached memory released
   */
  allocate(sizeBytes, stream = 0) {
    if (sizeBytes === 0) return new Block(0, 0, LIVE, NOWHERE);
    const size =
      this.divisions === null
        ? roundUp(sizeBytes, MIN_BLOCK_BYTES)
        : roundToDivisions(sizeBytes, this.divisions);
    const pool = size <= SMALL_BYTES ? this.small : this.large;
    const free = pool.get(stream) ?? this.open(size, stream);
    const block = this.takeFree(free, size) ?? this.takeNew(free, size, sizeBytes);
    const remaining = block.sizeBytes - size;
    if (remaining >= free.minRemainderBytes && size < free.splitBelowBytes) {
      free.add(block.cut(size, FREE));
    }
    block.state = LIVE;
    block.requestedBytes = sizeBytes;
    this.requestedBytes += sizeBytes;
    this.allocatedBytes += block.sizeBytes;
    if (this.allocatedBytes > this.peakAllocatedBytes) {
      this.peakAllocatedBytes = this.allocatedBytes;
    }
    return block;
  }

  /**
   * Put a block back into the cache, joined with its free neighbours.
   * @param {Block} block that is live
   */
  free(block) {
    if (block.state !== LIVE) throw new Error("the block is not allocated");
    if (block.sizeBytes === 0) {
      block.state = GONE;
      return;
    }
    this.allocatedBytes -= block.sizeBytes;
    this.requestedBytes -= block.requestedBytes;
    const free = block.home;
    const { preceding, following } = block;
    let joined = block;
    if (following !== null && following.state === FREE) {
      free.remove(following);
      block.absorbFollowing();
    }
    if (preceding !== null && preceding.state === FREE) {
      free.remove(preceding);
      preceding.absorbFollowing();
      joined = preceding;
    }
    joined.state = FREE;
    joined.freedAt = this.largeSearches;
    free.add(joined);
  }

  /** Give back all segments and pages without a live block. */
  emptyCache() {
    for (const free of [...this.large.values(), ...this.small.values()]) {
      if (this.expandable !== null) this.expandable.release(free);
      else for (const block of free.wholeSegments()) this.release(block);
    }
  }

  /** The free list for a pool that the stream has not used before. */
  open(size, stream) {
    const isSmall = size <= SMALL_BYTES;
    const isWhole = !isSmall && this.expandable === null;
    const free = isWhole
      ? new FreeList(false, SMALL_BYTES + 1, this.maxSplitBytes)
      : new FreeList(isSmall, MIN_BLOCK_BYTES, Infinity); // split whenever a block remains
    (isSmall ? this.small : this.large).set(stream, free);
    return free;
  }

  /** The smallest cached block that fits, out of its list; null when there is none. */
  takeFree(free, size) {
    if (!free.isSmall) this.largeSearches += 1;
    const { blocks } = free;
    let index = free.lowerBound(size, 0);
    if (index === blocks.length) return null;
    if (this.expandable !== null) index = this.expandable.bestFit(free, index);
    const block = blocks[index];
    if (block.sizeBytes >= this.maxSplitBytes && !this.mayUseOversize(block, size)) return null;
    blocks.splice(index, 1);
    return block;
  }

  /** An oversize block serves only oversize requests that nearly fill it. */
  mayUseOversize(block, size) {
    const { max_non_split_rounding_bytes: given, large_segment_size_bytes: usual } = this.settings;
    return size >= this.maxSplitBytes && block.sizeBytes < size + (given ?? usual);
  }

  /** A new block from the device, releasing cached memory when it is full. */
  takeNew(free, size, requestedBytes) {
    if (this.device.takenBytes > this.collectAboveBytes) this.collectGarbage();
    let block = this.grow(free, size);
    if (block === null && this.releaseOversize(free, size)) block = this.grow(free, size);
    if (block === null) {
      this.emptyCache();
      this.retryCount += 1;
      block = this.grow(free, size);
    }
    if (block === null) throw this.outOfMemory(requestedBytes);
    return block;
  }

  /** A segment, or pages of an expandable one; null when the device is full. */
  grow(free, size) {
    const segmentBytes = this.segmentBytes(size);
    if (this.device.takenBytes + segmentBytes > this.limitBytes) return null;
    if (this.expandable !== null) return this.expandable.grow(free, size);
    if (!this.device.take(segmentBytes)) return null;
    return new Block(this.device.place(segmentBytes), segmentBytes, FREE, free);
  }

  segmentBytes(size) {
    if (size <= SMALL_BYTES) return SMALL_SEGMENT_BYTES;
    if (size < MIN_LARGE_BYTES) return this.settings.large_segment_size_bytes;
    return roundUp(size, ROUND_LARGE_BYTES);
  }

  /** Give one whole segment back. */
  release(block) {
    block.home.remove(block);
    block.state = GONE;
    this.device.giveBack(block.sizeBytes);
  }

  /**
   * Release as many oversize blocks as the request needs, if that can be enough: one block that
   * is large enough, else the largest ones of this stream until their sum is.
   */
  releaseOversize(free, size) {
    if (this.maxSplitBytes === Infinity || this.expandable !== null) return false;
    const wanted = Math.max(size, this.maxSplitBytes);
    const index = free.lowerBound(wanted, 0);
    if (index < free.blocks.length) {
      this.release(free.blocks[index]);
      return true;
    }
    let releasedBytes = 0;
    for (const block of [...free.blocks].reverse()) {
      if (releasedBytes >= wanted || block.sizeBytes < this.maxSplitBytes) break;
      releasedBytes += block.sizeBytes;
      this.release(block);
    }
    return releasedBytes >= wanted;
  }

  /** Release the segments that were not used for longest. */
  collectGarbage() {
    let targetBytes = this.device.takenBytes - this.collectAboveBytes;
    let unused = [...this.large.values()].flatMap((free) => free.wholeSegments());
    const ageOf = (block) => this.largeSearches - block.freedAt;
    while (unused.length > 0 && targetBytes > 0) {
      const meanAge = unused.reduce((sum, block) => sum + ageOf(block), 0) / unused.length;
      for (const block of unused.filter((candidate) => ageOf(candidate) >= meanAge)) {
        targetBytes -= block.sizeBytes;
        this.release(block);
      }
      unused = unused.filter((block) => block.state !== GONE);
    }
  }

  outOfMemory(requestedBytes) {
    const lists = [...this.small.values(), ...this.large.values()];
    return new OutOfDeviceMemory({
      requestedBytes,
      allocatedBytes: this.allocatedBytes,
      reservedBytes: this.reservedBytes,
      capacityBytes: Math.min(this.device.capacityBytes, this.limitBytes),
      largestFreeBlockBytes: Math.max(0, ...lists.map((f) => f.blocks.at(-1)?.sizeBytes ?? 0)),
    });
  }
}

/** What may be reserved, and above how much old segments are released. */
function limitsOf(settings, totalBytes) {
  const { per_process_memory_fraction: fraction, garbage_collection_threshold: threshold } =
    settings;
  if (fraction === 1 || totalBytes === null) {
    return { limitBytes: Infinity, collectAboveBytes: Infinity };
  }
  const limitBytes = Math.trunc(fraction * totalBytes);
  const collectAboveBytes = threshold > 0 ? Math.trunc(threshold * limitBytes) : Infinity;
  return { limitBytes, collectAboveBytes };
}

/** Round up to the next of `divisions` steps between powers of two. */
function roundToDivisions(sizeBytes, divisions) {
  const bits = bitLength(sizeBytes);
  const count = divisions[Math.min(Math.max(bits - 21, 0), divisions.length - 1)];
  const isDivided = count > 1 && sizeBytes > MIN_BLOCK_BYTES * count;
  return roundUp(sizeBytes, isDivided ? Math.floor(2 ** (bits - 1) / count) : MIN_BLOCK_BYTES);
}

/** How many binary digits a whole number has. */
function bitLength(value) {
  const high = Math.floor(value / 2 ** 32);
  return high > 0 ? 64 - Math.clz32(high) : 32 - Math.clz32(value);
}
