/** Study: what batch size changes, as a finished study measured it. */

import { getJson } from "memfit/source/api";
import { hasDocument, isServed, readDocument } from "memfit/source/bundle";
import { StudyCharts } from "memfit/study/charts";
import { Advice, Findings } from "memfit/study/findings";
import { StudyTables } from "memfit/study/tables";
import { Chooser, FactGrid, Failure } from "memfit/ui/chooser";
import { formatCount } from "memfit/ui/format";
import { html, useEffect, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

export const tab = {
  id: "study",
  title: "tab.study",
  isThere: () => isServed || hasDocument("study"),
  Tab: StudyTab,
};

function StudyTab({ isOpen, theme }) {
  return isServed
    ? html`<${ServedStudy} isOpen=${isOpen} theme=${theme} />`
    : html`<${FileStudy} theme=${theme} />`;
}

function FileStudy({ theme }) {
  const [study, setStudy] = useState(/** @type {StudyDocument|null} */ (null));
  useEffect(() => {
    readDocument("study").then(setStudy);
  }, []);
  return html`<${StudyView} study=${study} theme=${theme} />`;
}

function ServedStudy({ isOpen, theme }) {
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
  return html`
    ${
      names &&
      html`<${Chooser} label="study.choose" names=${names} name=${name}
      choose=${setName} />`
    }
    ${answer.error && html`<${Failure} error=${answer.error} />`}
    ${!answer.error && html`<${StudyView} study=${answer.study} theme=${theme} />`}`;
}

/** A study as far as it has come; nothing while it is read. */
function StudyView({ study, theme }) {
  if (!study) return html`<p class="muted">${t("word.loading")}</p>`;
  if (study.is_finished) return html`<${FinishedStudy} study=${study} theme=${theme} />`;
  return html`<p class="card" data-test="unfinished">
    ${t("study.unfinished", { trials: formatCount(study.trials) })}</p>`;
}

/** Everything about a study. @param {{study: StudyDocument, theme: Theme}}  props */
function FinishedStudy({ study, theme }) {
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
    [t("study.time"), t("study.time.text", { seconds: formatCount(study.seconds) })],
  ];
  return html`<div class="study" data-test="study-view">
    <section class="card"><h2>${study.name}</h2><${FactGrid} facts=${facts} /></section>
    <${Advice} study=${study} />
    <${Findings} study=${study} />
    <${StudyCharts} study=${study} theme=${theme} />
    <${StudyTables} study=${study} />
    ${
      study.notes.length > 0 &&
      html`<section class="card"><h2>${t("study.notes")}</h2>
      <ul lang="en">${study.notes.map((note) => html`<li key=${note}>${note}</li>`)}</ul>
    </section>`
    }
  </div>`;
}
