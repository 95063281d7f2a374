/** Study: what batch size changes, as a finished study measured it. */

import { getJson } from "memfit/source/api";
import { isServed } from "memfit/source/bundle";
import { StudyCharts } from "memfit/study/charts";
import { Chooser, FactGrid, Failure } from "memfit/ui/chooser";
import { formatBytes, formatCount, formatShare } from "memfit/ui/format";
import { html, useEffect, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

export const tab = { id: "study", title: "tab.study", isThere: () => isServed, Tab: StudyTab };

function StudyTab({ isOpen, theme }) {
  const [names, setNames] = useState(/** @type {string[]|null} */ (null));
  const [name, setName] = useState("");
  const [answer, setAnswer] = useState(/** @type {{study?: StudyDocument, error?: Told}} */ ({}));
  useEffect(() => {
    if (!isOpen) return;
    getJson("/api/about").then(
      (about) => {
        setNames(about.studies);
        setName((old) => (about.studies.includes(old) ? old : (about.studies[0] ?? "")));
      },
      (error) => setAnswer({ error }),
    );
  }, [isOpen]);
  useEffect(() => {
    if (!name || !isOpen) return undefined;
    const stop = new AbortController();
    getJson(`/api/studies/${encodeURIComponent(name)}`, { signal: stop.signal }).then(
      (study) => setAnswer({ study }),
      (error) => stop.signal.aborted || setAnswer({ error }),
    );
    return () => stop.abort();
  }, [name, isOpen]);
  if (names?.length === 0) return html`<p class="card">${t("study.none")}</p>`;
  const study = answer.study;
  return html`
    ${
      names &&
      html`<${Chooser} label="study.choose" names=${names} name=${name}
      choose=${setName} />`
    }
    ${answer.error && html`<${Failure} error=${answer.error} />`}
    ${!study && !answer.error && html`<p class="muted">${t("word.loading")}</p>`}
    ${
      study &&
      !study.is_finished &&
      html`<p class="card" data-test="unfinished">
      ${t("study.unfinished", { trials: formatCount(study.trials) })}</p>`
    }
    ${study?.is_finished && html`<${StudyView} study=${study} theme=${theme} />`}`;
}

/** Everything about a study. @param {{study: StudyDocument, theme: Theme}} props a study document */
export function StudyView({ study, theme }) {
  const { settings } = study;
  const facts = [
    [t("study.model"), study.model_name],
    [t("study.data"), study.data_name],
    [t("study.device"), study.device],
    [t("study.images"), formatCount(settings.samples)],
    [t("study.seeds"), study.seeds],
    [
      t("study.budget"),
      t("study.budget.text", { epochs: settings.epochs, steps: formatCount(settings.steps) }),
    ],
  ];
  return html`<div class="study" data-test="study-view">
    <section class="card"><h2>${study.name}</h2><${FactGrid} facts=${facts} /></section>
    <${Advice} study=${study} />
    <${StudyCharts} study=${study} theme=${theme} />
    <${Sizes} study=${study} />
    ${
      study.notes.length > 0 &&
      html`<section class="card"><h2>${t("study.notes")}</h2>
      <ul lang="en">${study.notes.map((note) => html`<li key=${note}>${note}</li>`)}</ul>
    </section>`
    }
  </div>`;
}

function Advice({ study }) {
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
      ${found.share !== null && t("study.advice.share", { share: formatShare(found.share) })}</p>
    <p><code>${study.command}</code></p>
    <details><summary>${t("study.advice.why")}</summary>
      <ul lang="en">${[...found.reasons, ...found.changes].map(
        (reason) => html`
        <li key=${reason}>${reason}</li>`,
      )}</ul></details>
  </section>`;
}

function Sizes({ study }) {
  const memory = new Map(study.memory.map((one) => [one.batch_size, one.whole_bytes]));
  const speed = new Map(study.throughput.map((one) => [one.batch_size, one.samples_per_second]));
  const best = study.recommendation?.global_batch;
  return html`<section class="card"><h2>${t("study.table")}</h2>
    <div class="wide"><table class="learn-layers" data-test="sizes"><thead><tr>
      <th>${t("word.batch")}</th><th class="to-right">${t("study.table.memory")}</th>
      <th class="to-right">${t("study.speed.axis")}</th>
      <th class="to-right">${t("study.rate.axis")}</th>
      <th class="to-right">${t("study.steps.axis")}</th>
      <th class="to-right">${t("study.table.seconds")}</th>
      <th class="to-right">${t("study.accuracy.axis")}</th></tr></thead>
    <tbody>${study.sizes.map(
      (size) => html`<tr key=${size.batch_size}
        class=${size.batch_size === best ? "is-chosen" : ""}>
      <td>${formatCount(size.batch_size)}</td>
      <td class="to-right">${orDash(memory.get(size.batch_size), formatBytes)}</td>
      <td class="to-right">${orDash(speed.get(size.batch_size), formatCount)}</td>
      <td class="to-right">${orDash(size.rate?.value, (rate) => Number(rate.toPrecision(3)))}</td>
      <td class="to-right">${orDash(size.goal?.mean_steps, formatCount)}</td>
      <td class="to-right">${orDash(size.goal?.seconds, (s) => s.toFixed(s < 10 ? 2 : 0))}</td>
      <td class="to-right">${orDash(size.equal_epochs?.mean, percentText)}</td>
    </tr>`,
    )}</tbody></table></div></section>`;
}

function percentText(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function orDash(value, format) {
  return value === null || value === undefined ? "–" : format(value);
}
