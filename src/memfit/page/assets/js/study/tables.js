/** A study in figures: by batch size speed and memory, the way to the goal, and accuracy. */

import { judgedSplit } from "memfit/study/charts";
import { formatBytes, formatCount } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

/** @param {{study: StudyDocument}} props */
export function StudyTables({ study }) {
  return [SpeedAndMemory, ToTheGoal, Accuracy].map(
    (One) => html`<${One} key=${One.name} study=${study} />`,
  );
}

/** Columns are a title and what a row shows there; null and undefined are a dash. */
function SizeTable({ title, name, rows, columns, best }) {
  return html`<section class="card"><h2>${title}</h2>
    <div class="wide"><table class="learn-layers" data-test=${name}><thead><tr>
      <th>${t("word.batch")}</th>
      ${columns.map(([head]) => html`<th key=${head} class="to-right">${head}</th>`)}</tr></thead>
    <tbody>${rows.map(
      (row) => html`<tr key=${row.batch_size} class=${row.batch_size === best ? "is-chosen" : ""}>
        <td>${formatCount(row.batch_size)}</td>
        ${columns.map(
          ([head, cell]) => html`<td key=${head} class="to-right">${cell(row) ?? "–"}</td>`,
        )}</tr>`,
    )}</tbody></table></div></section>`;
}

function SpeedAndMemory({ study }) {
  const speeds = new Map(study.throughput.map((one) => [one.batch_size, one]));
  const useful = study.recommendation?.goodput ?? {};
  const isMeasured = study.memory.some((one) => one.measured_bytes !== null);
  const columns = [
    [t("study.speed.axis"), ({ batch_size: size }) => speedText(speeds.get(size))],
    [t("study.table.step"), ({ batch_size: size }) => millisecondsText(speeds.get(size))],
    [t("study.speed.goodput"), ({ batch_size: size }) => shown(useful[size], formatCount)],
    [
      t("study.table.micro"),
      (one) => shown(one.micro_batch, formatCount) ?? t("study.table.noFit"),
    ],
    [t("study.table.memory"), (one) => formatBytes(one.whole_bytes)],
    [t("part.activations"), (one) => formatBytes(one.parts.activations)],
    ...(isMeasured ? [[t("study.measured"), (one) => shown(one.measured_bytes, formatBytes)]] : []),
  ];
  const card = study.card ?? t("study.table.noCard");
  return html`<${SizeTable} title=${t("study.table.speed", { card })} name="speeds"
    rows=${study.memory} columns=${columns} best=${study.recommendation?.global_batch} />`;
}

function ToTheGoal({ study }) {
  const columns = [
    [t("study.rate.axis"), ({ rate }) => shown(rate?.value, rateText)],
    [
      t("study.table.asGood"),
      ({ rate }) => rate && `${rateText(rate.low)} – ${rateText(rate.high)}`,
    ],
    [t("study.steps.axis"), ({ goal }) => goal && stepsText(goal)],
    [t("study.table.examples"), ({ goal }) => shown(goal?.mean_examples, formatCount)],
    [t("study.table.seconds"), ({ goal }) => shown(goal?.seconds, secondsText)],
  ];
  return html`<${SizeTable} title=${t("study.table.goal")} name="sizes" rows=${study.sizes}
    columns=${columns} best=${study.recommendation?.global_batch} />`;
}

function Accuracy({ study }) {
  const { epochs, steps } = study.settings;
  const columns = [
    [t("study.accuracy.epochs", { epochs }), "equal_epochs"],
    [t("study.accuracy.steps", { steps: formatCount(steps) }), "equal_steps"],
    [t("study.gap.train"), "train_accuracy"],
    [t(`study.gap.${judgedSplit(study)}`), `${judgedSplit(study)}_accuracy`],
    [t("study.gap"), "gap"],
  ].map(([head, name]) => [head, (size) => shown(size[name], accuracyText)]);
  return html`<${SizeTable} title=${t("study.table.accuracy")} name="accuracies"
    rows=${study.sizes} columns=${columns} best=${study.recommendation?.global_batch} />`;
}

function shown(value, format) {
  return value === null || value === undefined ? null : format(value);
}

function rateText(rate) {
  return String(Number(rate.toPrecision(3)));
}

function speedText(point) {
  if (!point) return null;
  const half = (point.high - point.low) / 2;
  return `${formatCount(point.samples_per_second)} ± ${formatCount(half)}`;
}

function millisecondsText(point) {
  return point ? `${Number((1000 * point.step_seconds).toPrecision(3))} ms` : null;
}

function secondsText(seconds) {
  return seconds.toFixed(seconds < 10 ? 2 : 0);
}

/** The mean of the seeds and how far they spread; of how many it is known when not of all. */
function stepsText({ steps, mean_steps: mean }) {
  const reached = steps.filter((one) => one !== null);
  if (mean === null) return `${reached.length} / ${steps.length}`;
  return `${formatCount(mean)}${spreadText(deviation(reached), formatCount)}`;
}

function accuracyText({ mean, spread }) {
  return `${(100 * mean).toFixed(1)} %${spreadText(spread, (share) => (100 * share).toFixed(1))}`;
}

function spreadText(spread, format) {
  return spread === null ? "" : ` ± ${format(spread)}`;
}

/** Standard deviation of a sample; null with one. @param {number[]} values */
function deviation(values) {
  if (values.length < 2) return null;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}
