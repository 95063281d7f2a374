/** What a plan and its timeline are saved as. */

export { liveCsv, timelineCsv } from "memfit/export/csv";
export { perfettoJson } from "memfit/export/perfetto";
export { svgToPng, timelineSvg } from "memfit/export/svg";

/**
 * A plan at a batch on a card, with the keys of `memfit plan --json`.
 * @param {Plan} plan
 * @param {number} batch
 * @param {Card|null} card of the catalogue; null for none
 * @returns {string}
 */
export function planJson(plan, batch, card) {
  const { document } = plan;
  const { script, engine, made_up } = document;
  const limits = card && plan.limitsOn(card);
  const value = {
    schema_version: 1, // of PlanResult.to_dict in memfit's planner/result.py
    memfit_version: document.memfit_version,
    torch_version: document.torch_version,
    recipe: document.recipe,
    ...(script && { script, engine, made_up }),
    model: document.model,
    batch: document.batch ?? null,
    gpu: card && gpuOf(card),
    fits: card && plan.fitsOn(card, batch),
    max_batch_size: limits?.largest ?? null,
    largest_that_runs: limits?.largestThatRuns ?? null,
    recommended_batch_size: limits?.recommended ?? null,
    useful_batch: document.useful_batch,
    micro_batch: batch,
    accumulation: document.accumulation,
    at: atOf(plan.at(batch, card ?? document.card)),
    learning_rate: batch === document.batch_size ? rateOf(document.learning_rate) : null,
    evaluation: batch === document.batch_size ? (document.evaluation ?? null) : null,
    is_affine: document.is_affine,
    assumptions: document.assumptions.map((assumption) => assumption.text),
    unsupported: document.unsupported,
    not_modelled: (document.not_modelled ?? []).map((entry) => entry.text),
  };
  return `${JSON.stringify(value, null, 2)}\n`;
}

function atOf(at) {
  const { phase, module, operator, place, isEvaluation } = at.peak;
  return {
    batch_size: at.batch,
    is_exact: at.exact,
    peak_allocated_bytes: at.peakAllocatedBytes,
    peak_reserved_bytes: at.peakReservedBytes,
    total_bytes: at.totalBytes,
    parts: at.parts,
    parts_most: at.partsMost,
    peak: { phase, module, operator, place, is_evaluation: isEvaluation },
  };
}

function rateOf(learningRate) {
  if (learningRate === null) return null;
  const { value, rule, warmup } = learningRate;
  return { value, rule, warmup };
}

function gpuOf({ name, key, usable_bytes, total_bytes, context_bytes }) {
  return { name, key, usable_bytes, total_bytes, context_bytes };
}
