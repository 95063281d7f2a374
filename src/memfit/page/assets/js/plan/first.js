/** What the Plan tab shows until there is a plan: what is being worked out, and how far it is. */

import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { Problem, progressFacts } from "memfit/ui/progress";

const STAGES = ["starting", "building", "tracing", "verifying", "tabling"];

/** Of a served page. @param {{planning: Planning}} properties */
export function FirstScreen({ planning }) {
  const { form, progress, error } = planning;
  const isStarting = !form && !error;
  return html`<section class="card waiting" aria-busy=${isStarting || Boolean(progress)}
    data-test="first-screen">
    <${Hill} />
    <h2>${t("first.title")}</h2>
    <p>${t("first.about")}</p>
    ${(isStarting || progress) && html`<${Stages} progress=${progress ?? { stage: "starting" }} />`}
    ${form && !progress && html`<p class="muted">${t("first.stopped")}</p>`}
    ${error && html`<${Problem} error=${error} />`}
  </section>`;
}

function Stages({ progress }) {
  const now = STAGES.indexOf(progress.stage);
  return html`<ol class="stages">
    ${STAGES.map(
      (stage, index) => html`<li key=${stage} aria-current=${index === now && "step"}
      class=${index < now ? "done" : index === now ? "now" : ""}>
      ${t(`progress.${stage}`)}
      ${index === now && html` <span class="muted small number">${progressFacts(progress)}</span>`}
    </li>`,
    )}
  </ol>`;
}

/** A training step as everyone knows it: up in forward, down in backward. */
function Hill() {
  return html`<svg class="hill" viewBox="0 0 400 110" preserveAspectRatio="none" aria-hidden="true">
    <path class="parameters" d="M0 110V96H400V110Z" />
    <path class="optimizer" d="M0 96V84H400V96Z" />
    <path class="activations" d="M0 84H40C90 76 130 20 190 14C260 18 310 60 360 84H400V84H0Z" />
    <path class="temporaries" d="M190 14C260 18 310 60 360 84L350 84C300 64 255 26 190 14Z" />
  </svg>`;
}
