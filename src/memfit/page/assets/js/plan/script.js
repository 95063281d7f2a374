/** A script's plan: PyTorch's own verdict, what ran, and what was kept from it. */

import { formatBytes, formatCount } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const OPEN_ROWS = 8; // longer lists begin folded
const ADVICE = " Of the allocated memory"; // where PyTorch's message goes on about its settings

/** "Batch 64"; a script of which nobody knows what sets it has no number. */
export function batchWords({ script }, batch) {
  if (script?.knob.batch === null) return t("script.itself");
  return t("verdict.batch", { batch: formatCount(batch) });
}

/** "batch 64 (--batch-size)". */
export function knobWords({ name, batch: own }, batch) {
  return own === null
    ? t("script.ownBatch")
    : t("script.knob", { batch: formatCount(batch), name });
}

/** In place of the slider. @param {{script: Script, batch: number}} properties */
export function FixedBatch({ script, batch }) {
  const isKnown = script.knob.batch !== null;
  return html`<div data-test="fixed-batch">
    <span class="label">${t("control.batch")}</span>
    <b>${isKnown ? formatCount(batch) : t("script.ownBatch")}</b>
    <p class="small muted">${t("script.fixed")}${" "}
      ${isKnown ? html`<span lang="en">${script.why_fixed}</span>` : t("script.noKnob")}</p>
  </div>`;
}

/** @param {{plan: Plan, script: Script}} properties */
export function ScriptCard({ plan, script }) {
  return html`<section class="card script" aria-labelledby="script-title" data-test="script">
    <h2 id="script-title">${t("script.title")}</h2>
    <${ProofWords} plan=${plan} script=${script} />
    <${Passes} script=${script} />
    <${List} title="script.values" rows=${plan.document.made_up} row=${valueRow} />
    <${List} title="script.kept" rows=${script.kept} row=${keptRow} />
    <${List} title="script.notes" rows=${script.notes} row=${noteRow} />
  </section>`;
}

function ProofWords({ plan, script }) {
  const { document } = plan;
  const { proof } = script;
  if (!proof) return html`<p class="muted" data-test="proof">${t("script.noCard")}</p>`;
  const values = {
    subject: batchWords(document, proof.batch_size),
    card: document.card.name,
    steps: formatCount(proof.steps),
    step: formatCount(proof.steps + 1),
  };
  if (!proof.fits) {
    return html`<div data-test="proof"><p><b>${t("script.outOfMemory", values)}</b>
        ${proof.place && html` <code>${proof.place}</code>`}</p>
      ${proof.message && html`<p class="error small" lang="en">${proof.message.split(ADVICE)[0]}</p>`}</div>`;
  }
  const { peakReservedBytes, totalBytes } = plan.at(proof.batch_size);
  const moreBytes = proof.peak_reserved_bytes - peakReservedBytes;
  const sizes = { needs: formatBytes(totalBytes), takes: formatBytes(totalBytes + moreBytes) };
  return html`<div data-test="proof"><p><b>${t("script.ran", values)}</b></p>
    ${script.is_benchmarked && moreBytes > 0 && html`<p>${t("script.takes", sizes)}</p>`}</div>`;
}

/** Steps together, each evaluation with its line; all at the batch of the script's first run. */
function Passes({ script }) {
  const { steps, evaluations, knob } = script;
  const most = (key) => Math.max(0, ...steps.map((step) => step[key]));
  const rows = [
    {
      name: t("script.steps", { count: formatCount(steps.length) }),
      allocated_bytes: most("allocated_bytes"),
      reserved_bytes: most("reserved_bytes"),
    },
    ...evaluations.map((row) => ({
      ...row,
      name: t(`script.${row.when}`, { forwards: formatCount(row.forwards) }),
    })),
  ];
  const peakBytes = Math.max(...rows.map((row) => row.allocated_bytes));
  const allocated = ({ allocated_bytes: bytes }) =>
    bytes === peakBytes ? html`<b>${formatBytes(bytes)}</b>` : formatBytes(bytes);
  return html`<div class="wide"><table class="small"><thead><tr>
      <th>${t("script.passes")}${knob.batch !== null && html` · ${knobWords(knob, knob.batch)}`}</th>
      <th class="right">${t("script.most")}</th><th class="right">${t("script.reserved")}</th>
    </tr></thead><tbody>${rows.map(
      (row, index) => html`<tr key=${index} data-test="pass">
      <td>${row.name} ${row.place && html`<code>${row.place}</code>`}</td>
      <td class="right">${allocated(row)}</td>
      <td class="right">${formatBytes(row.reserved_bytes)}</td></tr>`,
    )}</tbody></table></div>`;
}

function List({ title, rows, row }) {
  if (!rows.length) return null;
  return html`<details class="small" open=${rows.length <= OPEN_ROWS} data-test=${title}>
    <summary>${t(title, { count: formatCount(rows.length) })}</summary>
    <ul>${rows.map((one, index) => html`<li key=${index}>${row(one)}</li>`)}</ul></details>`;
}

function valueRow({ what, place, operator, value, is_made_up: isMadeUp, count }) {
  const facts = [
    `${t(`script.${what}`)} ${value}`,
    t(isMadeUp ? "script.madeUp" : "script.computed"),
    ...(count > 1 ? [t("script.times", { count: formatCount(count) })] : []),
  ];
  return html`<code>${place || operator}</code> ${facts.join(" · ")}`;
}

function keptRow({ path, size_bytes: bytes, is_deleted: isDeleted }) {
  return html`<code>${path}</code> ${isDeleted ? t("script.deleted") : formatBytes(bytes)}`;
}

function noteRow(note) {
  return html`<span lang="en">${note}</span>`;
}
