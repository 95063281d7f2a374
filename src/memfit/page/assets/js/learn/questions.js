/** Chapters 7 and 8: what is often got wrong, and questions to try. */

import { Chapter, Para, Rich } from "memfit/learn/text";
import { COURSE, FLOAT32_BYTES, parametersOf, partsByPlan, sumOf } from "memfit/learn/world";
import { formatBytes, formatCount } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const MYTHS = ["size", "grey", "norm", "loader", "first", "hundred", "smi", "eighty", "test"];
const QUESTIONS = ["double", "adam", "colour", "half", "zero", "fit"];

/** Chapter 7. */
export function MythsChapter({ number, world, now, parts }) {
  const bytes = FLOAT32_BYTES * parametersOf(COURSE);
  const tensors = parts.parameters + parts.gradients + parts.optimizer + parts.batch;
  const values = {
    count: formatCount(parametersOf(COURSE)),
    bytes: formatCount(bytes),
    kilo: (bytes / 1000).toFixed(1),
    kibi: formatBytes(bytes),
    total: formatBytes(now.totalBytes),
    tensors: formatBytes(tensors),
    times: formatCount(now.totalBytes / tensors),
    context: formatBytes(now.parts.context),
    reserved: formatBytes(now.peakReservedBytes),
    batch: formatCount(world.batch),
  };
  return html`<${Chapter} number=${number} id="myths">
    <${Para} of="learn.myths.what" />
    ${MYTHS.map(
      (name) => html`<details class="learn-reveal" key=${name}
        data-test=${`myth-${name}`}>
      <summary><${Rich} of=${`learn.myth.${name}`} values=${values} /></summary>
      <${Para} of=${`learn.myth.${name}.right`} values=${values} />
    </details>`,
    )}
  <//>`;
}

/** Chapter 8. */
export function QuestionsChapter({ number, choose, at }) {
  const parts = (change) => partsByPlan(at({ ...COURSE, ...change }).timeline);
  const [here, twice, sgd, colour, mixed] = [
    {},
    { batch: 128 },
    { optimizer: "sgd" },
    { image: "colour" },
    { precision: "amp-bf16" },
  ].map(parts);
  const values = {
    here: formatBytes(sumOf(here)),
    twice: formatBytes(sumOf(twice)),
    share: (sumOf(twice) / sumOf(here)).toFixed(2),
    state: formatCount(here.optimizer - sgd.optimizer),
    without: formatBytes(sumOf(sgd)),
    colour: formatBytes(colour.parameters),
    grey: formatBytes(here.parameters),
    times: (colour.parameters / here.parameters).toFixed(2),
    half: formatBytes(sumOf(mixed)),
    ratio: (sumOf(mixed) / sumOf(here)).toFixed(2),
  };
  return html`<${Chapter} number=${number} id="questions">
    <${Para} of="learn.questions.what" />
    ${QUESTIONS.map(
      (name) => html`<${Question} key=${name} name=${name} values=${values}
      choose=${choose} />`,
    )}
  <//>`;
}

/** Choices that show an answer on the bench. */
const TRIALS = {
  double: { ...COURSE, batch: 128 },
  adam: { ...COURSE, optimizer: "sgd" },
  colour: { ...COURSE, image: "colour" },
  half: { ...COURSE, precision: "amp-bf16" },
};

function Question({ name, values, choose }) {
  return html`<details class="learn-reveal" data-test=${`question-${name}`}>
    <summary><${Rich} of=${`learn.question.${name}`} values=${values} /></summary>
    <${Para} of=${`learn.question.${name}.answer`} values=${values} />
    ${
      TRIALS[name] &&
      html`<button type="button" class="button small" data-test=${`try-${name}`}
      onClick=${() => choose(TRIALS[name])}>${t("learn.questions.try")}</button>`
    }
  </details>`;
}
