/** What a study found, in sentences: the recommendation, speed, noise, trade-off, learning rate. */

import { boundText } from "memfit/study/charts";
import { formatCount, formatShare } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

/** @param {{study: StudyDocument}} props */
export function Advice({ study }) {
  const found = study.recommendation;
  if (!found) return html`<section class="card study-advice">${t("study.advice.none")}</section>`;
  const values = {
    batch: formatCount(found.global_batch),
    micro: formatCount(found.micro_batch),
    accumulation: found.accumulation,
    rate: Number(found.learning_rate.toPrecision(4)),
  };
  const isUnsure = found.sureness === "cannot tell";
  const sureness = t(`study.sure.${found.sureness.replace(" ", "_")}`);
  return html`<section class=${`card study-advice ${isUnsure ? "is-unsure" : ""}`}
      data-test="advice">
    <h2>${t("study.advice", values)}</h2>
    <p>${t("study.advice.how", values)}</p>
    <p>${sureness}${" "}
      ${found.share !== null && t("study.advice.share", { share: formatShare(found.share) })}${" "}
      ${t("study.advice.basis", { basis: found.basis })}</p>
    <p><code>${study.command}</code></p>
    <details open><summary>${t("study.advice.why")}</summary>
      <ul lang="en">${[...found.reasons, ...found.changes].map(
        (reason) => html`<li key=${reason}>${reason}</li>`,
      )}</ul></details>
  </section>`;
}

/** @param {{study: StudyDocument}} props */
export function Findings({ study }) {
  const sentences = [...speedWords(study), ...noiseWords(study), ...tradeoffWords(study)];
  return html`<section class="card" data-test="findings"><h2>${t("study.found")}</h2><ul>
    ${sentences.map((sentence) => html`<li key=${sentence}>${sentence}</li>`)}
    ${
      study.rate_rule
        ? html`<li lang="en">${study.rate_rule.verdict}</li>`
        : html`<li>${t("study.rate.none")}</li>`
    }</ul></section>`;
}

function speedWords({ knee }) {
  return knee === null ? [] : [t("study.speed.knee", { batch: formatCount(knee) })];
}

/** The noise scale at the beginning and at the end, and of each layer where it was measured. */
function noiseWords({ noise, noise_batch: batch }) {
  const known = noise.filter((point) => point.noise.value !== null);
  if (!known.length) return [t("study.noise.none")];
  const ends = known.length > 1 ? [known[0], known[known.length - 1]] : known;
  const words = ends.map(({ epoch, noise: { value, low, high } }) =>
    t("study.noise.from", {
      first: formatCount(value),
      low: boundText(low),
      high: boundText(high),
      epoch: Number(epoch.toPrecision(2)),
      batch: formatCount(batch),
    }),
  );
  const layers = Object.entries(noise[noise.length - 1].layers ?? {}).map(
    ([name, { value }]) => `${name} ${value === null ? "–" : formatCount(value)}`,
  );
  return layers.length ? [...words, t("study.noise.layers", { layers: layers.join(", ") })] : words;
}

function tradeoffWords({ tradeoff }) {
  if (!tradeoff) return [t("study.steps.none")];
  const { critical, min_steps: steps, min_examples: examples } = tradeoff;
  return [
    t("study.steps.critical", {
      batch: formatCount(critical.value),
      low: boundText(critical.low),
      high: boundText(critical.high),
    }),
    t("study.steps.least", { steps: formatCount(steps), examples: formatCount(examples) }),
  ];
}
