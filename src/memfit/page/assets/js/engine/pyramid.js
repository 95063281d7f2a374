/** Where the largest of a range of values is, in a few steps. */
export class MaxPyramid {
  /** @param {Float64Array} values */
  constructor(values) {
    const count = values.length;
    this.values = values;
    this.tree = new Uint32Array(2 * count); // node k covers its children 2k and 2k + 1
    for (let index = 0; index < count; index += 1) this.tree[count + index] = index;
    for (let node = count - 1; node > 0; node -= 1) {
      this.tree[node] = this.larger(this.tree[2 * node], this.tree[2 * node + 1]);
    }
  }

  /**
   * The index of the first largest value.
   * @param {number} from the first index
   * @param {number} to one beyond the last; more than `from`
   */
  indexOfMax(from, to) {
    const { tree } = this;
    const count = this.values.length;
    let best = from;
    for (let low = from + count, high = to + count; low < high; low >>= 1, high >>= 1) {
      if (low & 1) best = this.larger(best, tree[low++]);
      if (high & 1) best = this.larger(best, tree[--high]);
    }
    return best;
  }

  larger(first, second) {
    const difference = this.values[first] - this.values[second];
    if (difference === 0) return Math.min(first, second);
    return difference > 0 ? first : second;
  }
}
