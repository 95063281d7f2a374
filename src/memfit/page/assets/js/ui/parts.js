/** The parts of memory, in the order in which people are taught them; a sum ends with the last. */

export const PARTS = [
  "parameters", "gradients", "optimizer", "batch", "activations", "temporaries", "workspaces",
  "cache", "context",
];
