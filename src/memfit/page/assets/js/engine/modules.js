/** What each module keeps from forward for backward. */

/**
 * A module of the model.
 * @typedef {object} ModuleNode
 * @property {string} name the last word of its path; of the root, the model's
 * @property {string} path such as "layer1.0.conv1"; empty for the root
 * @property {number} keptBytes of its own
 * @property {number} totalBytes with the modules below it
 * @property {number[][]} shapes of the tensors it keeps itself
 * @property {number[]} numbers of those allocations
 * @property {[number, number]|null} span first and last event of its forward pass
 * @property {ModuleNode[]} children in the order in which they ran
 */

/**
 * Bytes alive when the last backward pass of the last whole step starts that forward made, as
 * memfit's planner/layers.py counts them.
 * @param {Timeline} timeline
 * @param {string} name of the model
 * @returns {ModuleNode}
 */
export function moduleTree(timeline, name) {
  const { tape } = timeline;
  const end = startOfBackward(timeline);
  const root = newNode(name, "");
  const nodes = new Map([["", root]]);
  for (let position = startOfForward(timeline, end); position < end; position += 1) {
    const event = tape.events[position];
    if (event >= 0) extendSpan(nodes, tape.moduleOf(event), position);
  }
  for (const number of end > 0 ? timeline.liveAt(end - 1) : []) keep(nodes, timeline, number);
  return addUp(root);
}

/** Count an allocation that is alive when backward starts, if forward made it for backward. */
function keep(nodes, timeline, number) {
  const { part, phase, module, sizeBytes, shape } = timeline.describe(number);
  if (part !== "activations" || phase !== "forward") return;
  const node = nodeAt(nodes, module);
  node.keptBytes += sizeBytes;
  node.shapes.push(shape);
  node.numbers.push(number);
}

/** The number of events before the last backward pass of the last complete step. */
function startOfBackward({ marks }) {
  const steps = marks.filter((mark) => mark.phase === "optimizer").map((mark) => mark.step);
  const complete = Math.max(0, ...steps);
  const starts = marks.filter((mark) => mark.phase === "backward" && mark.step <= complete);
  return Math.max(0, ...starts.map((mark) => mark.position));
}

function startOfForward({ marks }, end) {
  const starts = marks.filter((mark) => mark.phase === "forward" && mark.position <= end);
  return Math.max(0, ...starts.map((mark) => mark.position));
}

/** Let the module and those above it reach to an event. */
function extendSpan(nodes, path, position) {
  for (let at = path; ; at = parentOf(at)) {
    const node = nodeAt(nodes, at);
    node.span = [node.span?.[0] ?? position, position];
    if (at === "") return;
  }
}

/** The node of a path, made with those above it when it is new. */
function nodeAt(nodes, path) {
  const known = nodes.get(path);
  if (known !== undefined) return known;
  const parent = nodeAt(nodes, parentOf(path));
  const node = newNode(path.slice(path.lastIndexOf(".") + 1), path);
  parent.children.push(node);
  nodes.set(path, node);
  return node;
}

function newNode(name, path) {
  return {
    name,
    path,
    keptBytes: 0,
    totalBytes: 0,
    shapes: [],
    numbers: [],
    span: null,
    children: [],
  };
}

function parentOf(path) {
  return path.slice(0, Math.max(0, path.lastIndexOf(".")));
}

function addUp(node) {
  node.totalBytes = node.keptBytes;
  for (const child of node.children) node.totalBytes += addUp(child).totalBytes;
  return node;
}
