/** Numbers as people read them; bytes as memfit.units.format_bytes writes them. */

/** @type {[string, number, number][]} */
const UNITS = [
  ["GiB", 2 ** 30, 2],
  ["MiB", 2 ** 20, 1],
  ["KiB", 2 ** 10, 1],
];

/**
 * A size with the unit that leaves 1 to 4 digits before the point: "397.5 KiB", "512 B".
 * @param {number} bytes
 */
export function formatBytes(bytes) {
  const size = Math.abs(bytes);
  for (const [name, unit, digits] of UNITS) {
    if (size >= unit) return `${withCommas((bytes / unit).toFixed(digits))} ${name}`;
  }
  return `${bytes} B`;
}

/** A difference of sizes: "+1.00 GiB", "−512 B", "=". @param {number} bytes */
export function formatSigned(bytes) {
  if (bytes === 0) return "=";
  return `${bytes > 0 ? "+" : "−"}${formatBytes(Math.abs(bytes))}`;
}

/** A whole number with thousands apart. @param {number} count */
export function formatCount(count) {
  return withCommas(String(Math.round(count)));
}

/** A share of one: "73 %". @param {number} share */
export function formatShare(share) {
  const percent = 100 * share;
  return `${percent >= 10 || percent === 0 ? Math.round(percent) : percent.toFixed(1)} %`;
}

/** "4×3×224×224". @param {number[]} shape */
export function formatShape(shape) {
  return shape.join("×");
}

/** Shares of a whole in tenths of a per cent that add up to 1000. @param {number[]} amounts */
export function shares(amounts) {
  const total = amounts.reduce((sum, amount) => sum + amount, 0);
  if (!total) return amounts.map(() => 0);
  const exact = amounts.map((amount) => (amount / total) * 1000);
  const whole = exact.map(Math.floor);
  const missing = 1000 - whole.reduce((sum, share) => sum + share, 0);
  const rests = exact.map((value) => value - Math.floor(value));
  const byRest = rests.map((_, index) => index).sort((a, b) => rests[b] - rests[a]);
  for (const index of byRest.slice(0, missing)) whole[index] += 1;
  return whole;
}

/** Per cent with one digit. @param {number} tenths */
export function percent(tenths) {
  return `${Math.floor(tenths / 10)}.${tenths % 10} %`;
}

/** An operator as people call it. @param {string} name */
export function shortOperator(name) {
  return name.replace(/^aten\./, "").replace(/\.default$/, "");
}

function withCommas(digits) {
  const [whole, rest] = digits.split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  return rest === undefined ? grouped : `${grouped}.${rest}`;
}
