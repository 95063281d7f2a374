/** Numbers as people read them; bytes as memfit.units.format_bytes writes them. */

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

function withCommas(digits) {
  const [whole, rest] = digits.split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  return rest === undefined ? grouped : `${grouped}.${rest}`;
}
