/** Records that a reader opens from the disk: plain JSON, checked before anything uses it. */

import { openPlan } from "memfit/engine/plan";
import { formatBytes } from "memfit/ui/format";
import { t } from "memfit/ui/i18n";

const LARGEST_BYTES = 64 * 2 ** 20;
const COLUMNS = [
  "part",
  "phase",
  "step",
  "operator",
  "module",
  "dtype",
  "shape",
  "constant",
  "slope",
];
const TEXTS = ["memfit_version"];

/** What is wrong with a file, in the reader's language. */
export class BadRecord extends Error {}

/**
 * A plan document, or measured points.
 * @typedef {{kind: "plan", plan: Plan}|{kind: "measure", points: MeasuredPoint[]}} Record
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
  const points = pointsOf(value);
  if (!points) throw new BadRecord(t("compare.notRecord"));
  return { kind: "measure", points: points.map(checkedPoint) };
}

/** What ran, of a record of memfit measure, of its --json, or of a list of points; else null. */
function pointsOf(value) {
  if (Array.isArray(value.measured)) return value.measured;
  if (Array.isArray(value.measurements)) {
    return value.measurements.filter(hasRun).map((row) => pointOf(row, value));
  }
  if (!Array.isArray(value.outcomes)) return null;
  return value.outcomes
    .map((outcome) => outcome?.measurement)
    .filter(hasRun)
    .map((row) => pointOf(row, value));
}

function hasRun(measurement) {
  return isObject(measurement) && measurement.status === "ok";
}

function pointOf(measurement, { name, target, versions, date }) {
  const isGpu = target?.kind === "cuda";
  const facts = [
    name,
    isGpu ? target.card?.name : t("compare.noGpu"),
    versions?.torch && `torch ${versions.torch}`,
    typeof date === "string" && date.slice(0, 10),
  ];
  return {
    ...measurement,
    total_bytes: measurement.gpu_used_bytes ?? null,
    source: facts.filter((fact) => typeof fact === "string").join(" · "),
  };
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
  check(
    TEXTS.every((name) => typeof document[name] === "string"),
    "memfit_version",
  );
  check(isObject(document.recipe ?? document.script), "recipe");
  check(isObject(document.allocator), "allocator");
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
  check(
    isObject(tape) &&
      [...COLUMNS, "events", "marks", "parts", "phases", "strings", "shapes"].every((name) =>
        Array.isArray(tape[name]),
      ),
    "tape",
  );
  const count = tape.constant.length;
  check(
    COLUMNS.every((name) => tape[name].length === count),
    "tape",
  );
  check(
    COLUMNS.every((name) => tape[name].every(Number.isFinite)),
    "tape",
  );
  const isMade = (event) => Number.isInteger(event) && event < count && event >= -count;
  check(tape.events.every(isMade), "events");
  check(isObject(tape.ruled) && Array.isArray(tape.ruled.entries), "ruled");
}

function checkedPoint(point) {
  check(isObject(point) && isWhole(point.batch_size), "measured");
  const bytes = ["peak_allocated_bytes", "peak_reserved_bytes", "total_bytes"];
  check(
    bytes.every(
      (name) => point[name] === undefined || point[name] === null || isWhole(point[name]),
    ),
    "measured",
  );
  return { ...point, source: String(point.source ?? "") };
}

function check(holds, what) {
  if (!holds) throw new BadRecord(t("compare.bad", { what }));
}

function isCard(card) {
  return (
    isObject(card) &&
    typeof card.name === "string" &&
    isWhole(card.usable_bytes) &&
    isWhole(card.context_bytes)
  );
}

function isWhole(value) {
  return Number.isInteger(value) && value >= 0;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
