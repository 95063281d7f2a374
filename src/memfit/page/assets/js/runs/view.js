/** A run: how far it is, its curves, and memory against the plan. */

import { Chart } from "memfit/charts/lines";
import { PartBars } from "memfit/charts/part-bars";
import { lastStep, pointsOf, smoothed } from "memfit/runs/follow";
import { FactGrid } from "memfit/ui/chooser";
import { formatBytes, formatCount, formatShare } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const BLUE = "--part-parameters";
const ORANGE = "--part-activations";
const GREEN = "--part-temporaries";
const SPEED_SHARE = 0.1; // of a run, for the mean: as long as several evaluations

/** @param {{followed: Followed & {document: RunDocument}, theme: Theme}} props */
export function RunView({ followed, theme }) {
  const { document: run, rows } = followed;
  const events = rows.filter((row) => row.event === "micro-batch");
  const verticals = events.map((event) => ({ at: event.step, colour: "--card-line" }));
  const x = { label: t("runs.step"), format: formatCount, holds: [0, lastStep(rows)] };
  const props = { rows, theme, verticals, x };
  return html`<div class="run" data-test="run-view">
    <${Head} run=${run} rows=${rows} />
    ${rows.length === 0 && html`<p class="card" data-test="no-rows">${t("runs.empty")}</p>`}
    <div class="study-plots">
      <${Loss} ...${props} />
      <${Accuracy} ...${props} />
      <${Reserved} run=${run} ...${props} />
      <${Parts} run=${run} />
      <${Rate} ...${props} />
      <${MicroBatch} ...${props} isWanted=${events.length > 0} />
      <${Speed} ...${props} points=${run.pace?.speed ?? []} />
    </div>
    <${Events} events=${events} />
    <${Recipe} run=${run} />
  </div>`;
}

function Head({ run, rows }) {
  const { recipe, summary, status } = run;
  const step = lastStep(rows);
  const planned = run.pace?.total_steps ?? recipe?.steps;
  const steps = status === "finished" ? (summary?.step ?? planned) : planned; // it may end early
  const last = rows.findLast((row) => row.event === "step");
  const judged = judgedBy(rows);
  const facts = [
    [t("runs.step"), steps ? `${formatCount(step)} / ${formatCount(steps)}` : formatCount(step)],
    [t("runs.epoch"), epochText(last, recipe)],
    [t("runs.loss"), last?.loss?.toPrecision(4) ?? "–"],
    [judged.title, judged.text(judged.last)],
    ...(summary?.test ? [[judged.titleOf("test"), judged.text(summary.test)]] : []),
    [t("runs.micro_batch"), last ? formatCount(last.micro_batch) : "–"],
    [t("runs.device"), deviceText(run)],
  ];
  return html`<section class="card">
    <h2>${run.name} <span class=${`pill status-${status}`} data-test="run-status">
      ${t(`runs.status.${status}`)}</span></h2>
    ${status === "killed" && html`<p class="small">${t("runs.killed")}</p>`}
    ${steps && html`<progress max=${steps} value=${step} aria-label=${t("runs.progress")} />`}
    <${FactGrid} facts=${facts} />
    <p class="muted small">${t("runs.started", { when: whenText(run.created) })}
      ${
        run.resumed > 0 &&
        ` ${t(run.resumed === 1 ? "runs.resumed.once" : "runs.resumed", { count: run.resumed })}`
      }</p>
  </section>`;
}

/** As memfit.trainer.devices names it; a card's name is the same in every language. */
function deviceText({ pace, summary, plan }) {
  const name = pace?.device ?? summary?.device ?? plan?.gpu?.name ?? "–";
  return name === "CPU under a virtual budget" ? t("runs.device.budget") : name;
}

/** The epoch, counted from 1; of how many, where steps do not decide. */
function epochText(row, recipe) {
  if (!row) return "–";
  const isCounted = recipe && recipe.steps === undefined && recipe.epochs;
  return isCounted ? `${row.epoch + 1} / ${recipe.epochs}` : formatCount(row.epoch + 1);
}

function whenText(iso) {
  return iso ? iso.replace("T", " ").replace("+00:00", " UTC") : "?";
}

function Loss({ rows, ...rest }) {
  const raw = pointsOf(rows, "step", "loss");
  const lines = [
    { label: t("runs.loss.step"), colour: BLUE, isFaint: true, points: raw },
    { label: t("runs.loss.mean"), colour: BLUE, points: smoothed(raw) },
    {
      label: t(`runs.images.${judgedBy(rows).split}`),
      colour: ORANGE,
      kind: "both",
      points: pointsOf(rows, "evaluation", "loss"),
    },
  ];
  return html`<${Chart} title=${t("runs.loss")} lines=${lines} name="loss" ...${rest}
    y=${{ label: t("runs.loss") }} />`;
}

function Accuracy({ rows, ...rest }) {
  const { title, split, metric, format } = judgedBy(rows);
  const lines = [
    {
      label: t(`runs.images.${split}`),
      colour: ORANGE,
      kind: "both",
      points: pointsOf(rows, "evaluation", metric),
    },
  ];
  return html`<${Chart} title=${title} lines=${lines} name="accuracy" ...${rest}
    y=${{ label: title, format }} />`;
}

/** What decides which weights are best; runs from before validation say neither. */
function judgedBy(rows) {
  const last = rows.findLast((row) => row.event === "evaluation");
  const { split = "test", metric = "accuracy" } = last ?? { split: "val" };
  const titleOf = (name) => t(`runs.score.${name}`, { metric: t(`runs.metric.${metric}`) });
  const format = metric === "mean_absolute_error" ? (value) => value.toPrecision(4) : formatShare;
  const text = (row) => (typeof row?.[metric] === "number" ? format(row[metric]) : "–");
  return { last, split, metric, titleOf, title: titleOf(split), text, format };
}

function Rate({ rows, ...rest }) {
  const lines = [
    { label: t("runs.rate"), colour: GREEN, points: pointsOf(rows, "step", "learning_rate") },
  ];
  return html`<${Chart} title=${t("runs.rate")} lines=${lines} name="rate" ...${rest}
    y=${{ label: t("runs.rate"), fromZero: true }} />`;
}

function MicroBatch({ rows, isWanted, ...rest }) {
  if (!isWanted) return null;
  const lines = [
    {
      label: t("runs.micro_batch"),
      colour: BLUE,
      isStepped: true,
      points: pointsOf(rows, "step", "micro_batch"),
    },
  ];
  return html`<${Chart} title=${t("runs.micro_batch")} note=${t("runs.micro_batch.note")}
    lines=${lines} name="micro-batch" ...${rest}
    y=${{ label: t("runs.micro_batch"), fromZero: true, format: formatCount }} />`;
}

function Speed({ points, ...rest }) {
  const lines = [
    { label: t("runs.speed.span"), colour: BLUE, isFaint: true, points },
    { label: t("runs.loss.mean"), colour: BLUE, points: smoothed(points, SPEED_SHARE) },
  ];
  return html`<${Chart} title=${t("runs.speed")} note=${t("runs.speed.note")} lines=${lines}
    name="speed" ...${rest}
    y=${{ label: t("runs.speed"), fromZero: true, format: formatCount }} />`;
}

/** What was reserved at each step, what the plan said, and what the device may give. */
function Reserved({ run, ...rest }) {
  const points = run.pace?.memory ?? [];
  const limit = limitOf(run);
  const isCounted = points.some(([, reserved]) => reserved !== null);
  const ends = points.length ? [points[0], points.at(-1)] : [];
  const lines = [
    {
      label: t("runs.reserved"),
      colour: BLUE,
      isStepped: true,
      points: points.map(([step, reserved]) => [step, reserved]),
    },
    {
      label: t("runs.planned"),
      colour: ORANGE,
      isDashed: true,
      isStepped: true,
      points: points.map(([step, , planned]) => [step, planned]),
    },
    {
      label: t("runs.limit", { size: formatBytes(limit ?? 0) }),
      colour: "--card-line",
      points: limit === null ? [] : ends.map(([step]) => [step, limit]),
    },
  ];
  const note = isCounted ? "runs.reserved.note" : "runs.reserved.uncounted";
  return html`<${Chart} title=${t("runs.memory")} note=${t(note)} lines=${lines} name="reserved"
    ...${rest} y=${{
      label: t("runs.reserved"),
      fromZero: true,
      format: formatBytes,
      isBytes: true,
    }} />`;
}

/** What PyTorch may reserve, the CUDA context not counted; null where nothing limits it. */
function limitOf({ summary, pace, plan }) {
  const gpu = plan?.gpu;
  return (
    pace?.limit_bytes ??
    summary?.memory?.measured?.limit_bytes ??
    (gpu ? gpu.usable_bytes - gpu.context_bytes : null)
  );
}

/** The peak, part by part: as predicted, and as measured where the run has ended. */
function Parts({ run }) {
  const { predicted, measured } = run.summary?.memory ?? {};
  if (!predicted) return null;
  const limit = limitOf(run);
  const rows = [
    {
      name: t("runs.memory.predicted", { batch: run.summary.largest_micro_batch }),
      parts: predicted.parts,
      totalBytes: predicted.reserved_bytes,
    },
  ];
  if (measured) {
    rows.push({
      name: t("runs.memory.measured"),
      totalBytes: measured.reserved_bytes,
      parts: withCache(measured),
    });
  }
  return html`<figure class="card study-plot" data-test="run-parts">
    <figcaption><h3>${t("runs.parts")}</h3><p class="muted small">
      ${t(measured ? "runs.parts.note" : "runs.parts.unmeasured")}${" "}
      ${limit && t("runs.memory.limit", { size: formatBytes(limit) })}</p></figcaption>
    <${PartBars} rows=${rows} limitBytes=${limit} />
  </figure>`;
}

/** Measured parts and what was reserved beyond them, where the device counts parts. */
function withCache({ parts, reserved_bytes: reserved }) {
  if (!parts) return undefined;
  const used = Object.entries(parts).filter(([name]) => name !== "cache" && name !== "context");
  return { ...parts, cache: reserved - used.reduce((sum, [, size]) => sum + size, 0) };
}

/** When memory ran out, and what was done about it. */
function Events({ events }) {
  if (!events.length) return null;
  return html`<section class="card is-warned" data-test="events"><h2>${t("runs.events")}</h2>
    <ul>${events.map((event, index) => html`<${Event} key=${index} event=${event} />`)}</ul>
  </section>`;
}

function Event({ event }) {
  const isSmaller = event.to < event.from;
  const predicted = isSmaller ? event.predicted_bytes : null; // of the size that ran out
  return html`<li>
    <strong>${t(isSmaller ? "runs.shrunk" : "runs.grew", {
      step: formatCount(event.step),
      from: formatCount(event.from),
      to: formatCount(event.to),
    })}</strong>${" "}
    ${
      typeof predicted === "number" &&
      html`<span class="muted small">
      ${t("runs.event.predicted", { size: formatBytes(predicted) })}</span>`
    }
    ${event.message && html`<div class="muted small mono" lang="en">${event.message}</div>`}
  </li>`;
}

function Recipe({ run }) {
  if (!run.recipe) return null;
  const entries = Object.entries(run.recipe);
  return html`<details class="card"><summary>${t("runs.recipe")}</summary>
    <p><code>${run.command.join(" ")}</code></p>
    <div class="wide"><table class="small"><tbody>${entries.map(
      ([key, value]) => html`
      <tr key=${key}><th scope="row"><code>${key}</code></th>
        <td><code>${typeof value === "string" ? value : JSON.stringify(value)}</code></td></tr>`,
    )}
    </tbody></table></div></details>`;
}
