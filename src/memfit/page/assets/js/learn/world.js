/** The course's network and its arithmetic by hand, and the same counted by a plan. */

export const HIDDEN = 128;
export const CLASSES = 10;
export const FLOAT32_BYTES = 4;
export const HALF_BYTES = 2;
export const LABEL_BYTES = 8; // int64
export const MAX_BATCH = 1024;

/** `(C, H, W)` of the images, and how many there are to train on. */
export const IMAGES = {
  grey: { shape: [1, 28, 28], samples: 60_000, name: "MNIST" },
  colour: { shape: [3, 32, 32], samples: 50_000, name: "CIFAR-10" },
};
export const OPTIMIZERS = ["sgd", "momentum", "adam"];
export const PRECISIONS = ["fp32", "amp-bf16"];
/** Numbers that an optimizer keeps for each parameter. */
export const STATE_NUMBERS = { sgd: 0, momentum: 1, adam: 2 };

/**
 * What the reader chose.
 * @typedef {{image: "grey"|"colour", optimizer: string, precision: string, batch: number}} World
 */

/** The course's own choice. @type {World} */
export const COURSE = { image: "grey", optimizer: "adam", precision: "fp32", batch: 64 };

/** The name of the plan document of a choice. @param {World} world */
export function keyOf({ image, optimizer, precision }) {
  return `${image}-${optimizer}-${precision}`;
}

/** Numbers in one image. @param {World} world */
export function inputsOf({ image }) {
  return IMAGES[image].shape.reduce((product, side) => product * side, 1);
}

/** Numbers that the network learns. @param {World} world */
export function parametersOf(world) {
  return inputsOf(world) * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES;
}

/**
 * The tensors that forward keeps, by hand: numbers, bytes each, and a name of the text.
 * In mixed precision the cast input stays for the first layer's weight gradient, and the half
 * copy of the second layer's weights for the gradient that goes on to the ReLU.
 * @param {World} world
 * @returns {{key: string, factors: number[], each: number}[]}
 */
export function keptByHand(world) {
  const { batch, precision } = world;
  const isMixed = precision !== "fp32";
  const width = isMixed ? HALF_BYTES : FLOAT32_BYTES;
  const tensors = [
    { key: "cast_input", factors: [batch, inputsOf(world)], each: width },
    { key: "relu", factors: [batch, HIDDEN], each: width },
    { key: "cast_weight", factors: [CLASSES, HIDDEN], each: width },
    { key: "output", factors: [batch, CLASSES], each: width },
    { key: "logs", factors: [batch, CLASSES], each: width },
    { key: "cast_loss", factors: [batch, CLASSES], each: FLOAT32_BYTES },
    { key: "scalars", factors: [3], each: FLOAT32_BYTES },
  ];
  return tensors.filter(({ key }) => isMixed || !key.startsWith("cast_"));
}

/** Bytes of a tensor by hand. @param {{factors: number[], each: number}} tensor */
export function bytesByHand({ factors, each }) {
  return factors.reduce((product, factor) => product * factor, each);
}

/**
 * The four parts by hand, each when it is full.
 * @param {World} world
 * @returns {Record<string, number>} bytes by name of the part
 */
export function partsByHand(world) {
  const weights = parametersOf(world) * FLOAT32_BYTES;
  const { batch, optimizer } = world;
  return {
    parameters: weights,
    gradients: weights,
    optimizer: STATE_NUMBERS[optimizer] * weights,
    batch: batch * inputsOf(world) * FLOAT32_BYTES + batch * LABEL_BYTES,
    activations: keptByHand(world).reduce((sum, tensor) => sum + bytesByHand(tensor), 0),
  };
}

/**
 * The same counted by the plan: activations and the batch where backward begins, gradients and
 * state where the optimizer's step begins.
 * @param {Timeline} timeline
 * @returns {Record<string, number>}
 */
export function partsByPlan(timeline) {
  const backward = timeline.partsAt(startOf(timeline, "backward") - 1);
  const optimizer = timeline.partsAt(startOf(timeline, "optimizer") - 1);
  const { parameters, gradients, optimizer: state } = optimizer;
  const { batch, activations } = backward;
  return { parameters, gradients, optimizer: state, batch, activations };
}

/** The last step that the tape holds whole. */
export function lastStep(timeline) {
  return Math.max(...timeline.marks.filter((m) => m.phase === "optimizer").map((m) => m.step));
}

/** Events before a phase of a step. @returns {number} */
export function startOf(timeline, phase, step = lastStep(timeline)) {
  return timeline.marks.find((mark) => mark.phase === phase && mark.step === step).position;
}

/** Events before the end of the last step. */
export function endOf(timeline) {
  const after = lastStep(timeline) + 1;
  return timeline.marks.find((mark) => mark.step === after)?.position ?? timeline.count;
}

/** Bytes of all parts together. @param {Record<string, number>} parts */
export function sumOf(parts) {
  return Object.values(parts).reduce((sum, size) => sum + size, 0);
}

/** "64 × 784". @param {number[]} factors */
export function productText(factors) {
  return factors.map((factor) => factor.toLocaleString("en-US")).join(" × ");
}
