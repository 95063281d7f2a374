/** How far the server is with a plan, or why there is none. */

import { formatCount } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

/** @param {{progress: Progress|null}} properties */
export function Progress({ progress }) {
  if (!progress) return null;
  return html`<p class="progress small" role="status" data-test="progress">
    <i></i><span>${t(`progress.${progress.stage}`)}${" "}
      <span class="muted number">${progressFacts(progress)}</span></span></p>`;
}

/** "batch 8 · 1,476 operators", as far as it is known. @param {Progress} progress */
export function progressFacts({ batch, operators }) {
  return [
    ...(batch ? [t("progress.batch", { batch: formatCount(batch) })] : []),
    ...(operators ? [t("progress.operators", { count: formatCount(operators) })] : []),
  ].join(" · ");
}

/** An error in the server's words, which are English. @param {{error: Told}} properties */
export function Problem({ error }) {
  return html`<p class="error small" role="alert" data-test="plan-error" lang="en">
    ${error.message}${error.hint && html`<br /><span>${error.hint}</span>`}</p>`;
}
