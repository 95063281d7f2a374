/** The parts of memory, in the order in which people are taught them, as the page was given them. */

import { parts } from "memfit/source/bundle";

const UNKNOWN = "unknown"; // only of snapshots: what nothing tells the part of

/** Every part that a snapshot can show. */
export const SNAPSHOT_PARTS = parts.map(({ part }) => part);

/** Those that a plan sums up; the allocator's cache and the CUDA context close the sum. */
export const PARTS = SNAPSHOT_PARTS.filter((part) => part !== UNKNOWN);

/** The four parts that everyone is taught; the first has two halves. */
export const TAUGHT = parts
  .filter(({ number }) => number)
  .map(({ part, number }) => ({ name: part, badge: number }));
