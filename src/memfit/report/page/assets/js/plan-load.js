/** Records that a reader opens from the disk: plain JSON, checked before anything uses it. */

import { t } from "memfit/i18n";
import { formatBytes } from "memfit/format";
import { openPlan } from "memfit/plan";

const LARGEST_BYTES = 64 * 2 ** 20;
const COLUMNS = [
  "part", "phase", "step", "operator", "module", "dtype", "shape", "constant", "slope",
];
const TEXTS = ["memfit_version"];

/** What is wrong with a file, in the reader's language. */
export class BadRecord extends Error {}

/**
 * A plan document, or measured points.
 * @typedef {{kind: "plan", plan: object}|{kind: "measure", points: object[]}} Record
 */

/**
 * Read a file that the reader chose.
 * @param {File} file
 * @returns {Promise<Record>}
 * @throws {BadRecord}
 */
export async function readRecord(file) {
  if (file.size > LARGEST_BYTES) {
    const sizes = { size: formatBytes(file.size), most: formatBytes(LARGEST_BYTES) };
    throw new BadRecord(t("compare.tooLarge", sizes));
  }
  return recordOf(parsed(await file.text()));
}

/** @param {any} value of JSON @returns {Record} */
export function recordOf(value) {
  if (!isObject(value)) throw new BadRecord(t("compare.notRecord"));
  if (value.kind === "plan") return { kind: "plan", plan: openedPlan(value) };
  const points = Array.isArray(value.measured) ? value.measured : null;
  if (!points) throw new BadRecord(t("compare.notRecord"));
  return { kind: "measure", points: points.map(checkedPoint) };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new BadRecord(t("compare.notJson"));
  }
}

function openedPlan(document) {
  if (document.schema_version !== 1) {
    throw new BadRecord(t("compare.otherVersion", { version: String(document.schema_version) }));
  }
  check(TEXTS.every((name) => typeof document[name] === "string"), "memfit_version");
  check(isObject(document.recipe) && isObject(document.allocator), "recipe");
  check(isObject(document.model) && typeof document.model.name === "string", "model");
  check(isCard(document.card) && (document.gpu === null || isCard(document.gpu)), "card");
  check(Array.isArray(document.cards) && document.cards.every(isCard), "cards");
  check(isWhole(document.batch_size) && document.batch_size > 0, "batch_size");
  check(isObject(document.traced), "traced");
  if (document.is_affine) checkTape(document.tape);
  Object.values(document.traced).forEach(checkTape);
  return openPlan({ measured: [], assumptions: [], unsupported: {}, ...document });
}

function checkTape(tape) {
  check(isObject(tape) && [...COLUMNS, "events", "marks", "parts", "phases", "strings", "shapes"]
    .every((name) => Array.isArray(tape[name])), "tape");
  const count = tape.constant.length;
  check(COLUMNS.every((name) => tape[name].length === count), "tape");
  check(COLUMNS.every((name) => tape[name].every(Number.isFinite)), "tape");
  const isMade = (event) => Number.isInteger(event) && event < count && event >= -count;
  check(tape.events.every(isMade), "events");
  check(isObject(tape.ruled) && Array.isArray(tape.ruled.entries), "ruled");
}

function checkedPoint(point) {
  check(isObject(point) && isWhole(point.batch_size), "measured");
  const bytes = ["peak_allocated_bytes", "peak_reserved_bytes", "total_bytes"];
  check(bytes.every((name) => point[name] === undefined || point[name] === null
    || isWhole(point[name])), "measured");
  return { ...point, source: String(point.source ?? "") };
}

function check(holds, what) {
  if (!holds) throw new BadRecord(t("compare.bad", { what }));
}

function isCard(card) {
  return isObject(card) && typeof card.name === "string" && isWhole(card.usable_bytes)
    && isWhole(card.context_bytes);
}

function isWhole(value) {
  return Number.isInteger(value) && value >= 0;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
