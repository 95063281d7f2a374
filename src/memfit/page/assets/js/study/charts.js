/** The curves of a study: what batch size changes. */

import { Chart } from "memfit/charts/lines";
import { PartBars } from "memfit/charts/part-bars";
import { formatCount, formatShare } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const BLUE = "--part-parameters";
const ORANGE = "--part-activations";
const GREEN = "--part-temporaries";
const RED = "--card-line";
const GREY = "--muted";

/** Every curve for which there are measurements. @param {{study: StudyDocument, theme: Theme}} props */
export function StudyCharts({ study, theme }) {
  const props = { study, theme, batch: batchAxis(study), verticals: recommendedOf(study) };
  const charts = [Speed, Steps, Examples, Accuracy, Gap, Rates, Noise];
  return html`<div class="study-plots">
    <${Memory} study=${study} />
    ${charts.map((One, index) => html`<${One} key=${index} ...${props} />`)}
  </div>`;
}

function batchAxis({ sizes }) {
  const splits = sizes.map((size) => size.batch_size);
  return { label: t("word.batch"), isLog: true, format: formatCount, splits };
}

function recommendedOf({ recommendation }) {
  return recommendation ? [{ at: recommendation.global_batch, colour: "--good" }] : [];
}

function Memory({ study }) {
  if (!study.memory.length) return null;
  const context = Math.max(...study.memory.map((m) => m.parts.context ?? 0)) / 2 ** 20;
  const rows = study.memory.map((one) => ({
    name: formatCount(one.batch_size),
    parts: one.parts,
    totalBytes: one.whole_bytes,
    markBytes: one.measured_bytes,
  }));
  return html`<figure class="card study-plot" data-test="plot-memory">
    <figcaption><h3>${t("study.memory")}</h3>
      <p class="muted small">${t("study.memory.note", { context: context.toFixed(0) })}${" "}
      ${study.memory.some((m) => m.measured_bytes) && t("study.memory.measured")}</p></figcaption>
    <${PartBars} rows=${rows} />
  </figure>`;
}

function Speed({ study, theme, batch, verticals }) {
  const useful = Object.entries(study.recommendation?.goodput ?? {});
  const lines = [
    {
      label: t("study.speed.measured"),
      colour: BLUE,
      kind: "both",
      points: study.throughput.map((p) => [p.batch_size, p.samples_per_second, p.low, p.high]),
    },
    {
      label: t("study.speed.goodput"),
      colour: GREEN,
      kind: "both",
      points: useful.map(([size, value]) => [Number(size), value]),
    },
  ];
  const knee = study.knee === null ? "" : t("study.speed.knee", { batch: formatCount(study.knee) });
  return html`<${Chart} title=${t("study.speed")} note=${`${t("study.speed.note")} ${knee}`}
    lines=${lines} x=${batch} theme=${theme} verticals=${verticals} name="speed"
    y=${{ label: t("study.speed.axis"), fromZero: true, format: formatCount }} />`;
}

function Steps({ study, theme, batch, verticals }) {
  const reached = study.sizes.filter((size) => size.goal && size.goal.mean_steps !== null);
  if (reached.length < 2) return null;
  const ends = (steps) => [Math.min(...steps), Math.max(...steps)];
  const [first] = reached;
  const halved = reached.map((size) => [
    size.batch_size,
    (first.goal.mean_steps * first.batch_size) / size.batch_size,
  ]);
  const lines = [
    {
      label: t("study.steps.measured"),
      colour: BLUE,
      kind: "points",
      points: reached.map((size) => [
        size.batch_size,
        size.goal.mean_steps,
        ...ends(size.goal.steps),
      ]),
    },
    { label: t("study.steps.fit"), colour: RED, points: study.curves.steps ?? [] },
    { label: t("study.steps.half"), colour: GREY, isDashed: true, points: halved },
  ];
  const critical = study.tradeoff?.critical;
  const note = critical
    ? t("study.steps.critical", {
        batch: formatCount(critical.value),
        low: boundText(critical.low),
        high: boundText(critical.high),
      })
    : "";
  return html`<${Chart} title=${t("study.steps")} note=${`${goalText(study.goal)} ${note}`}
    lines=${lines} x=${batch} theme=${theme} verticals=${verticals} name="steps"
    y=${{ label: t("study.steps.axis"), isLog: true, format: formatCount }} />`;
}

/** The same goal in examples: each batch size is a point between the least of the one and the other. */
function Examples({ study, theme }) {
  const reached = study.sizes.filter((size) => size.goal && size.goal.mean_steps !== null);
  if (reached.length < 2) return null;
  const fit = (study.curves.steps ?? []).map(([batch, steps]) => [batch * steps, steps]);
  const lines = [
    {
      label: t("study.steps.measured"),
      colour: BLUE,
      kind: "points",
      points: reached.map(({ goal }) => [goal.mean_examples, goal.mean_steps]),
    },
    { label: t("study.steps.fit"), colour: RED, points: fit },
  ];
  return html`<${Chart} title=${t("study.examples")} note=${t("study.examples.note")}
    lines=${lines} theme=${theme} name="examples"
    x=${{ label: t("study.examples.axis"), isLog: true, format: formatCount }}
    y=${{ label: t("study.steps.axis"), isLog: true, format: formatCount }} />`;
}

/** An end of an interval, which may be open. @param {number|null} value */
export function boundText(value) {
  return value === null ? "?" : formatCount(value);
}

function goalText(goal) {
  if (!goal) return "";
  const value = goal.kind === "accuracy" ? formatShare(goal.value) : goal.value.toPrecision(3);
  return t(`study.goal.${goal.kind === "accuracy" ? "accuracy" : "loss"}`, { value });
}

/** Whose accuracy was measured beside training: ``test`` in studies from before ``val``. */
export function judgedSplit({ sizes }) {
  return sizes.some((size) => size.test_accuracy) ? "test" : "val";
}

function Accuracy({ study, theme, batch, verticals }) {
  const { epochs, steps } = study.settings;
  const lines = [
    {
      label: t("study.accuracy.epochs", { epochs }),
      colour: BLUE,
      kind: "both",
      points: measuredPoints(study.sizes, "equal_epochs"),
    },
    {
      label: t("study.accuracy.steps", { steps: formatCount(steps) }),
      colour: ORANGE,
      kind: "both",
      points: measuredPoints(study.sizes, "equal_steps"),
    },
  ];
  return html`<${Chart} title=${t("study.accuracy")} lines=${lines} x=${batch} theme=${theme}
    note=${t("study.accuracy.note", { seeds: study.seeds })} verticals=${verticals} name="accuracy"
    y=${{ label: t("study.accuracy.axis"), format: formatShare }} />`;
}

function Gap({ study, theme, batch, verticals }) {
  const lines = [
    {
      label: t("study.gap.train"),
      colour: ORANGE,
      kind: "both",
      points: measuredPoints(study.sizes, "train_accuracy"),
    },
    {
      label: t(`study.gap.${judgedSplit(study)}`),
      colour: BLUE,
      kind: "both",
      points: measuredPoints(study.sizes, `${judgedSplit(study)}_accuracy`),
    },
  ];
  return html`<${Chart} title=${t("study.gap")} note=${t("study.gap.note")} lines=${lines}
    x=${batch} theme=${theme} verticals=${verticals} name="gap"
    y=${{ label: t("study.accuracy.axis"), format: formatShare }} />`;
}

/** Mean, and one standard deviation to each side. */
function measuredPoints(sizes, name) {
  return sizes
    .filter((size) => size[name])
    .map((size) => {
      const { mean, spread } = size[name];
      return [size.batch_size, mean, mean - (spread ?? 0), mean + (spread ?? 0)];
    });
}

function Rates({ study, theme, batch, verticals }) {
  const best = study.sizes
    .filter((size) => size.rate)
    .map(({ rate }) => [rate.batch_size, rate.value, rate.low, rate.high]);
  if (best.length < 2) return null;
  const lines = [
    { label: t("study.rate.best"), colour: BLUE, kind: "points", points: best },
    { label: t("study.rate.fit"), colour: RED, points: study.curves.rate ?? [] },
  ];
  const rule = study.rate_rule;
  const note = rule
    ? t("study.rate.rule", {
        exponent: rule.exponent.toFixed(2),
        low: rule.low.toFixed(2),
        high: rule.high.toFixed(2),
      })
    : "";
  return html`<${Chart} title=${t("study.rate")} note=${note} lines=${lines} x=${batch}
    theme=${theme} verticals=${verticals} name="rates"
    y=${{ label: t("study.rate.axis"), isLog: true }} />`;
}

function Noise({ study, theme }) {
  const known = study.noise.filter(({ noise }) => noise.value !== null);
  if (!known.length) return null;
  const last = Math.max(...known.map((point) => point.epoch));
  const critical = study.tradeoff?.critical.value;
  const first = Math.min(...known.map((point) => point.epoch));
  const lines = [
    {
      label: t("study.noise.scale"),
      colour: BLUE,
      kind: "both",
      points: known.map(({ epoch, noise }) => [epoch, noise.value, noise.low, noise.high]),
    },
    {
      label: t("study.noise.critical"),
      colour: RED,
      isDashed: true,
      points: critical
        ? [
            [first, critical],
            [last, critical],
          ]
        : [],
    },
  ];
  return html`<${Chart} title=${t("study.noise")} lines=${lines} theme=${theme} name="noise"
    note=${t("study.noise.note", { batch: formatCount(study.noise_batch) })}
    x=${{ label: t("study.noise.epoch") }}
    y=${{ label: t("study.noise.axis"), isLog: true, format: formatCount }} />`;
}
