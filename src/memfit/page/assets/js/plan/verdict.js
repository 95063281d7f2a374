/** The answer first: does it fit, what it takes, the batch to use. */

import { PartsBar } from "memfit/memory/parts";
import { batchWords, knobWords } from "memfit/plan/script";
import { setBatch } from "memfit/plan/store";
import {
  formatBytes,
  formatCount,
  formatShape,
  formatShare,
  shortOperator,
} from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { hasText, t } from "memfit/ui/i18n";

const ICONS = {
  fits: "M5 13l4.5 4.5L19 7",
  tight: "M12 6v8M12 17.5v.5",
  no: "M7 7l10 10M17 7L7 17",
};

/**
 * @param {{view: View|null, limits: Limits|null, document: PlanDocument, card: Card,
 *   batch: number, isPending: boolean,
 *   needsTrace: boolean}} properties
 */
export function Verdict({ view, limits, document, card, batch, isPending, needsTrace }) {
  const verdict = view?.verdict ?? "unknown";
  return html`<section class=${`card verdict ${verdict}`} aria-labelledby="verdict-title">
    <${Subject} document=${document} card=${card} batch=${batch} />
    <div class="verdict-head">
      <div class="answer" aria-live="polite">
        ${view && html`<${Icon} verdict=${verdict} />`}
        <div>
          <h2 id="verdict-title" class="words" data-test="verdict" data-verdict=${verdict}>
            ${t(`verdict.${verdict}`)}</h2>
          <p class="sentence" data-test="verdict-sentence">
            ${
              needsTrace
                ? t("verdict.needsTrace", { batch: formatCount(batch) })
                : view && sentence(view, card, document)
            }
          </p>
        </div>
      </div>
      <${Numbers} ...${{ view, limits, batch, document }} />
    </div>
    ${
      view &&
      html`<${PartsBar} parts=${view.parts} most=${view.partsMost} totalBytes=${view.totalBytes}
      limitBytes=${card.usable_bytes} safety=${document.safety}
      isTraining=${(document.recipe?.mode ?? "train") === "train"} />
      <${PeakLine} view=${view} isPending=${isPending} />`
    }
    <${LearningRate} rate=${document.learning_rate} document=${document} batch=${batch} />
    <${NotModelled} entries=${document.not_modelled ?? []} />
    <${Unsupported} reasons=${document.unsupported} />
    <${Assumptions} assumptions=${document.assumptions} />
  </section>`;
}

function Subject({ document, card, batch }) {
  const { model, script, engine } = document;
  const parameters = t("verdict.parameters", { count: shortCount(model.parameters) });
  const facts = script
    ? [parameters, knobWords(script.knob, batch), engine]
    : [parameters, ...recipeWords(document)];
  return html`<div class="subject">
    <p class="model-name"><b data-test="model-name">${model.name}</b>
      <span class="muted"> ${t("verdict.on")} </span><span data-test="card-name">${card.name}</span>
    </p>
    <p class="muted small" data-test="subject">${facts.join(" · ")}</p>
  </div>`;
}

function recipeWords({ recipe, input_shape: shape }) {
  return [
    recipe.input_ids ? t("verdict.tokens", { count: formatCount(shape[0]) }) : formatShape(shape),
    recipe.precision,
    recipe.mode === "train"
      ? (recipe.optimizer.name ?? recipe.optimizer)
      : t(`verdict.mode.${recipe.mode}`),
    ...(recipe.memory_format === "nhwc" ? [t("verdict.nhwc")] : []),
    ...(recipe.gradient_checkpointing ? [t("field.gradient_checkpointing")] : []),
    ...(recipe.ema ? [t("field.ema")] : []),
  ];
}

function Icon({ verdict }) {
  return html`<svg class="mark" viewBox="0 0 24 24" aria-hidden="true">
    <circle cx="12" cy="12" r="11" /><path d=${ICONS[verdict]} />
  </svg>`;
}

function sentence(view, card, document) {
  const values = {
    subject: batchWords(document, view.batch),
    total: formatBytes(view.totalBytes),
    card: formatBytes(card.usable_bytes),
    share: formatShare(view.totalBytes / card.usable_bytes),
    missing: formatBytes(view.totalBytes - card.usable_bytes),
  };
  const isMore = view.totalBytes > card.usable_bytes;
  if (view.verdict === "no") return t(`verdict.sentence.${isMore ? "no" : "pieces"}`, values);
  return t(`verdict.sentence.${isMore ? "releases" : "fits"}`, values);
}

function Numbers({ view, limits, batch, document }) {
  const isFixed = document.script && !document.is_affine;
  return html`<div class="stats">
    ${
      !isFixed &&
      html`<${Figure} label=${t("verdict.recommended")} note=${recommendedNote(document, limits)}
      value=${limits?.recommended} current=${batch} test="recommended" />
    <${Figure} label=${t("verdict.largest")} note=${largestNote(limits)}
      value=${limits?.largest} current=${batch} test="largest" />`
    }
    <div class="stat still">
      <span class="muted small">${t("verdict.peak")}</span>
      <b class="number" data-test="peak-total">${view ? formatBytes(view.totalBytes) : "…"}</b>
      <span class="muted small" data-test="exact">${
        view && !view.exact ? t("verdict.inexact") : t("verdict.peakNote")
      }</span>
    </div>
  </div>`;
}

/** What ends the recommended batch: a share of the card, or that more samples are of no use. */
function recommendedNote({ safety, useful_batch: useful }, limits) {
  const most = useful?.batch_size;
  const isReached = most && limits?.recommended === (most < 16 ? most : most - (most % 8));
  if (!isReached) return t("verdict.within", { percent: Math.round(100 * safety) });
  return t(`verdict.useful.${useful.because}`, { batch: formatCount(most) });
}

function largestNote(limits) {
  if (!limits || limits.largestThatRuns <= limits.largest) return t("verdict.largestNote");
  return t("verdict.largerToo", { batch: formatCount(limits.largestThatRuns) });
}

function Figure({ label, note, value, current, test }) {
  const isNone = value === 0 || value === null;
  return html`<button type="button" class="stat" data-test=${test} disabled=${!value}
    aria-pressed=${value === current} onClick=${() => setBatch(value)}>
    <span class="muted small">${label}</span>
    <b class="number">${
      value === undefined ? "…" : isNone ? t("verdict.none") : formatCount(value)
    }</b>
    <span class="muted small">${note}</span>
  </button>`;
}

function PeakLine({ view, isPending }) {
  const { peak } = view;
  const values = {
    phase: t(peak.isEvaluation ? "phase.validation" : `phase.${peak.phase}`),
    module: peak.module || t("verdict.noModule"),
    operator: shortOperator(peak.operator),
  };
  return html`<p class=${`peak-line small ${isPending ? "pending" : ""}`}>
    <span data-test="peak-at">${t("verdict.peakAt", values)}
      ${peak.place && html` · <code>${peak.place}</code>`}</span>
    <span class="muted number">${t("time.allocated")}${" "}
      <b data-test="peak-allocated" data-bytes=${view.peakAllocatedBytes}>
        ${formatBytes(view.peakAllocatedBytes)}</b>
      ${" · "}${t("time.reserved")}${" "}
      <b data-test="peak-reserved" data-bytes=${view.peakReservedBytes}>
        ${formatBytes(view.peakReservedBytes)}</b>
    </span>
  </p>`;
}

function LearningRate({ rate, document, batch }) {
  if (!rate) return null;
  const { recipe, accumulation, batch_size: planned } = document;
  const ratio = (batch * accumulation) / recipe.base_batch_size;
  const isLinear = rate.rule === "linear";
  const value = recipe.base_lr * (isLinear ? ratio : Math.sqrt(ratio));
  const values = {
    rate: Number(value.toPrecision(3)),
    batch: formatCount(batch * accumulation),
    base: recipe.base_lr,
    baseBatch: formatCount(recipe.base_batch_size),
  };
  const hasWarmup = isLinear && ratio > 1;
  return html`<p class="small" data-test="learning-rate" data-planned=${planned}>
    <b>${t("verdict.rate", values)}</b>${" "}
    ${t(isLinear ? "verdict.rate.linear" : "verdict.rate.root", values)}
    ${hasWarmup ? ` ${t("verdict.rate.warmup")}` : ""}</p>`;
}

function Unsupported({ reasons }) {
  const names = Object.keys(reasons).sort();
  if (!names.length) return null;
  return html`<div class="incomplete" data-test="unsupported">
    <b>${t("verdict.unsupported")}</b>${" "}<span class="small">${t("word.reasons")}</span>
    <ul>${names.map(
      (name) => html`<li key=${name}>
      <code>${name}</code>: <span lang="en">${reasons[name]}</span></li>`,
    )}</ul>
  </div>`;
}

function NotModelled({ entries }) {
  if (!entries.length) return null;
  return html`<div class="incomplete" data-test="not-modelled">
    <b>${t("verdict.notModelled")}</b>
    <ul>${entries.map(
      ({ key, values, text }) => html`<li key=${key}>${assumptionText(key, values, text)}</li>`,
    )}</ul>
  </div>`;
}

function Assumptions({ assumptions }) {
  if (!assumptions.length) return null;
  return html`<details class="assumptions small" data-test="assumptions">
    <summary>${t("verdict.assumptions", { count: assumptions.length })}</summary>
    <ul>${assumptions.map(
      ({ key, values, text }) => html`
      <li key=${key} data-test=${`assumption-${key}`}>${assumptionText(key, values, text)}</li>`,
    )}
    </ul>
  </details>`;
}

function assumptionText(key, values, text) {
  return hasText(`assume.${key}`) ? t(`assume.${key}`, values) : text;
}

/** @type {[number, string][]} */
const COUNTS = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
];

/** "25.6 M", as memfit plan prints counts. @param {number} number */
export function shortCount(number) {
  for (const [factor, letter] of COUNTS) {
    if (number >= factor) {
      const digits = Math.max(0, 3 - String(Math.floor(number / factor)).length);
      return `${(number / factor).toFixed(digits)} ${letter}`;
    }
  }
  return formatCount(number);
}
