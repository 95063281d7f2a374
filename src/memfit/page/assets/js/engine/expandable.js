/**
 * Expandable segments: one stretch of addresses a pool and stream, mapped page by page.
 *
 * The rules and their sources in PyTorch are those of memfit's memory/expandable.py.
 */

import { Block, FREE, LIVE, roundUp, SMALL_SEGMENT_BYTES, UNMAPPED } from "memfit/engine/blocks";

/** All expandable segments of one device. */
export class ExpandableSegments {
  /**
   * @param {import("memfit/engine/blocks").DeviceMemory} device where pages come from
   * @param {number} deviceTotalBytes a segment reserves 9/8 of it as addresses
   * @param {number} largePageBytes what one page of the large pool holds
   */
  constructor(device, deviceTotalBytes, largePageBytes) {
    this.device = device;
    this.spanBytes = deviceTotalBytes + Math.floor(deviceTotalBytes / 8);
    this.largePageBytes = largePageBytes;
  }

  /**
   * The index of the free block to use when `index` is the smallest that is large enough: a
   * block in front of unmapped addresses counts with the size that it can grow to.
   */
  bestFit(free, index) {
    const { blocks } = free;
    let best = index;
    let sizeBytes = growableBytes(blocks[index]);
    for (let candidate = index + 1; candidate < blocks.length; candidate += 1) {
      const nextBytes = growableBytes(blocks[candidate]);
      if (nextBytes >= sizeBytes) break;
      best = candidate;
      sizeBytes = nextBytes;
    }
    return best;
  }

  /**
   * Map pages until a free block holds `sizeBytes`, and take it out of the list; null when the
   * device has no more pages, and those mapped so far stay.
   */
  grow(free, sizeBytes) {
    let block = this.lowestRoom(free, sizeBytes);
    if (block.state === UNMAPPED) block = this.map(block, Math.min(block.sizeBytes, sizeBytes));
    while (block !== null && block.sizeBytes < sizeBytes) {
      const unmapped = block.following;
      if (unmapped === null) return null; // larger than the whole segment
      block = this.map(unmapped, Math.min(sizeBytes - block.sizeBytes, unmapped.sizeBytes));
    }
    if (block !== null) free.remove(block);
    return block;
  }

  /** Give every page back that holds no part of a live block. */
  release(free) {
    for (const block of [...free.blocks]) {
      const unmapped = this.unmap(block);
      const isWhole = unmapped && unmapped.preceding === null && unmapped.following === null;
      if (isWhole) free.removeUnmapped(unmapped);
    }
  }

  /** The lowest run of free and unmapped blocks with room for the request. */
  lowestRoom(free, sizeBytes) {
    for (const unmapped of free.unmapped) {
      const { preceding } = unmapped;
      const first = preceding !== null && preceding.state === FREE ? preceding : unmapped;
      if (hasRoom(first, sizeBytes)) return first;
    }
    const pageBytes = this.pageBytes(free);
    const spanBytes = roundUp(this.spanBytes, pageBytes);
    const address = this.device.place(spanBytes, pageBytes);
    const segment = new Block(address, spanBytes, UNMAPPED, free);
    free.addUnmapped(segment);
    return segment;
  }

  /** Put pages behind the start of an unmapped block; the free block they end up in, or null. */
  map(block, sizeBytes) {
    const free = block.home;
    const mappedBytes = roundUp(sizeBytes, this.pageBytes(free));
    if (!this.device.take(mappedBytes)) return null;
    free.removeUnmapped(block);
    if (mappedBytes < block.sizeBytes) free.addUnmapped(block.cut(mappedBytes, UNMAPPED));
    block.state = FREE;
    const { following, preceding } = block;
    if (following !== null && following.state === FREE) {
      free.remove(following);
      block.absorbFollowing();
    }
    let mapped = block;
    if (preceding !== null && preceding.state === FREE) {
      free.remove(preceding);
      preceding.absorbFollowing();
      mapped = preceding;
    }
    free.add(mapped);
    return mapped;
  }

  /** Take the whole pages of a free block away; the unmapped block they end up in, or null. */
  unmap(block) {
    const free = block.home;
    const pageBytes = this.pageBytes(free);
    const begin = roundUp(block.address, pageBytes);
    const blockEnd = block.address + block.sizeBytes;
    const end = blockEnd - (blockEnd % pageBytes);
    if (begin >= end) return null;
    free.remove(block);
    let pages = block;
    if (begin > block.address) {
      pages = block.cut(begin - block.address, FREE);
      free.add(block);
    }
    if (pages.sizeBytes > end - begin) free.add(pages.cut(end - begin, FREE));
    pages.state = UNMAPPED;
    this.device.giveBack(end - begin);
    return joinedUnmapped(pages);
  }

  pageBytes(free) {
    return free.isSmall ? SMALL_SEGMENT_BYTES : this.largePageBytes;
  }
}

/** Enter an unmapped block, one with its unmapped neighbours. */
function joinedUnmapped(block) {
  const free = block.home;
  const { following, preceding } = block;
  if (following !== null && following.state === UNMAPPED) {
    free.removeUnmapped(following);
    block.absorbFollowing();
  }
  if (preceding !== null && preceding.state === UNMAPPED) {
    preceding.absorbFollowing(); // keeps its place in the list: its address is the same
    return preceding;
  }
  free.addUnmapped(block);
  return block;
}

function hasRoom(first, sizeBytes) {
  let missingBytes = sizeBytes;
  for (let block = first; missingBytes > 0 && block !== null; block = block.following) {
    if (block.state === LIVE) return false;
    missingBytes -= block.sizeBytes;
  }
  return missingBytes <= 0;
}

function growableBytes(block) {
  const { following } = block;
  const isGrowable = following !== null && following.state === UNMAPPED;
  return isGrowable ? block.sizeBytes + following.sizeBytes : block.sizeBytes;
}
