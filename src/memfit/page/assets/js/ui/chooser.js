/** One of several names, and what went wrong: Data, Study and Runs share them. */

import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

/** @param {{label: string, names: string[], name: string, choose: Function}} props */
export function Chooser({ label, names, name, choose }) {
  return html`<p><label>${t(label)}${" "}
    <select value=${name} data-test="chooser" onChange=${(event) => choose(event.target.value)}>
      ${names.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
    </select></label></p>`;
}

/** @param {{error: Told}} props */
export function Failure({ error }) {
  return html`<div class="error" role="alert" data-test="failure">
    <strong>${t("word.error")}</strong><br />
    <span lang="en">${error.message} ${error.hint ?? ""}</span>
  </div>`;
}

/** Figures with their names. @param {{facts: [string, any][]}} props */
export function FactGrid({ facts }) {
  return html`<div class="facts-grid">
    ${facts.map(
      ([name, value]) => html`<div key=${name}>
      <span class="muted small">${name}</span><b class="number">${value}</b></div>`,
    )}
  </div>`;
}
