/** Learn: the four parts that fill GPU memory, with the course's own network. */

import { openPlan } from "memfit/engine/plan";
import { BatchChapter } from "memfit/learn/batch";
import { Bench } from "memfit/learn/bench";
import { ImageChapter, ModelChapter } from "memfit/learn/model";
import { PartsChapter } from "memfit/learn/parts";
import { PrecisionChapter } from "memfit/learn/precision";
import { MythsChapter, QuestionsChapter } from "memfit/learn/questions";
import { StepChapter } from "memfit/learn/step";
import { Para } from "memfit/learn/text";
import { COURSE, keyOf, partsByPlan } from "memfit/learn/world";
import { getJson } from "memfit/source/api";
import { hasDocument, isServed, readDocument } from "memfit/source/bundle";
import { Failure } from "memfit/ui/chooser";
import { html, useEffect, useMemo, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

export const tab = {
  id: "learn",
  title: "tab.learn",
  isThere: () => isServed || hasDocument("learn"),
  Tab: LearnTab,
};

const CHAPTERS = [
  ImageChapter,
  ModelChapter,
  PartsChapter,
  StepChapter,
  BatchChapter,
  PrecisionChapter,
  MythsChapter,
  QuestionsChapter,
];

function LearnTab() {
  const [plans, setPlans] = useState(/** @type {any} */ (null));
  const [world, setWorld] = useState(COURSE);
  const [failure, setFailure] = useState(/** @type {Told|null} */ (null));
  useEffect(() => {
    const found = hasDocument("learn") ? readDocument("learn") : getJson("/api/learn");
    found.then((documents) => setPlans(() => plansOf(documents)), setFailure);
  }, []);
  const at = useMemo(() => plans && readerOf(plans), [plans]);
  if (failure) return html`<${Failure} error=${failure} />`;
  if (!at) return html`<p class="muted">${t("word.loading")}</p>`;
  const choose = (change) => setWorld((old) => ({ ...old, ...change }));
  const now = at(world);
  const parts = partsByPlan(now.timeline);
  return html`<div class="learn">
    <header class="learn-start">
      <h2>${t("learn.title")}</h2>
      <${Para} of="learn.lead" />
    </header>
    <${Bench} world=${world} choose=${choose} parts=${parts} />
    <div class="chapters">
      ${CHAPTERS.map(
        (One, index) => html`<${One} key=${index} number=${index + 1} world=${world}
        choose=${choose} at=${at} now=${now} parts=${parts} />`,
      )}
    </div>
  </div>`;
}

/** A plan for each choice, opened when it is first asked for. */
function plansOf(documents) {
  const opened = new Map();
  return (key) => {
    if (!opened.has(key)) opened.set(key, openPlan(documents[key]));
    return opened.get(key);
  };
}

/** Where every byte goes for a choice. */
function readerOf(plans) {
  return (world) => plans(keyOf(world)).at(world.batch);
}
