/** Chapter 5: what batch size changes, in memory and besides. */

import { StackChart } from "memfit/learn/chart";
import { Chapter, Para } from "memfit/learn/text";
import { IMAGES, MAX_BATCH, partsByPlan, sumOf } from "memfit/learn/world";
import { formatBytes, formatCount } from "memfit/ui/format";
import { html, useMemo } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { TAUGHT } from "memfit/ui/parts";

const COMPARED = [1, 16, 64, 256, MAX_BATCH];
const POINTS = 9;
const BASE_BATCH = 64;
const BASE_RATES = { sgd: 0.01, momentum: 0.01, adam: 0.001 };

/** Chapter 5. */
export function BatchChapter({ number, world, choose, at }) {
  const one = at({ ...world, batch: 1 });
  const two = at({ ...world, batch: 2 });
  const perImage = sumOf(partsByPlan(two.timeline)) - sumOf(partsByPlan(one.timeline));
  const { samples, name } = IMAGES[world.image];
  const values = {
    each: formatCount(perImage),
    fixed: formatBytes(sumOf(partsByPlan(one.timeline)) - perImage),
    samples: formatCount(samples),
    data: name,
    batch: formatCount(world.batch),
    steps: formatCount(Math.ceil(samples / world.batch)),
    exact: (samples / world.batch).toLocaleString("en-US", { maximumFractionDigits: 2 }),
    last: formatCount(samples % world.batch || world.batch),
  };
  const rule = world.optimizer === "adam" ? "adam" : "sgd";
  return html`<${Chapter} number=${number} id="batch">
    <${Para} of="learn.batch.memory" values=${values} />
    <${Growth} world=${world} at=${at} />
    <h3>${t("learn.batch.besides")}</h3>
    <ul class="learn-facts">
      <li><${Para} of="learn.batch.steps" values=${values} /></li>
      <li><${Para} of="learn.batch.noise" /></li>
      <li><${Para} of=${`learn.batch.rate.${rule}`} /></li>
      <li><${Para} of="learn.batch.speed" /></li>
      <li><${Para} of="learn.batch.norm" /></li>
    </ul>
    <${Comparison} world=${world} choose=${choose} at=${at} />
  <//>`;
}

/** Memory of the four parts from batch 1 to the largest. */
function Growth({ world, at }) {
  const { image, optimizer, precision } = world;
  const points = useMemo(() => {
    const batches = Array.from({ length: POINTS }, (_, k) => Math.round(batchAt(k)));
    return batches.map((batch) => partsByPlan(at({ ...world, batch }).timeline));
  }, [at, image, optimizer, precision]);
  const areas = TAUGHT.map(({ name }) => ({ name, values: points.map((parts) => parts[name]) }));
  const place = placeOf(world.batch);
  const ticks = [256, 512, 768].map((batch) => ({
    at: placeOf(batch),
    text: String(batch),
  }));
  return html`<figure class="learn-figure" data-test="batch-chart">
    <${StackChart} areas=${areas} count=${POINTS} cursor=${place - 0.5} ticks=${ticks}
      label=${t("learn.batch.chart")} />
    <figcaption class="muted small">${t("learn.batch.caption", { most: MAX_BATCH })}</figcaption>
  </figure>`;
}

function batchAt(point) {
  return 1 + (point * (MAX_BATCH - 1)) / (POINTS - 1);
}

function placeOf(batch) {
  return ((batch - 1) / (MAX_BATCH - 1)) * (POINTS - 1);
}

function Comparison({ world, choose, at }) {
  const { samples } = IMAGES[world.image];
  const batches = [...new Set([...COMPARED, world.batch])].sort((a, b) => a - b);
  const rows = batches.map((batch) => ({
    batch,
    bytes: sumOf(partsByPlan(at({ ...world, batch }).timeline)),
    steps: Math.ceil(samples / batch),
    noise: Math.sqrt(BASE_BATCH / batch),
    rate: rateOf(world.optimizer, batch),
  }));
  return html`<div class="wide"><table class="learn-layers" data-test="comparison">
    <thead><tr>
      <th>${t("word.batch")}</th><th class="to-right">${t("learn.batch.four")}</th>
      <th class="to-right">${t("learn.batch.per_epoch")}</th>
      <th class="to-right">${t("learn.batch.spread")}</th>
      <th class="to-right">${t("learn.batch.rate")}</th></tr></thead>
    <tbody>${rows.map(
      (row) => html`<tr key=${row.batch}
        class=${row.batch === world.batch ? "is-chosen" : ""}>
      <td><button type="button" class="batch-link" onClick=${() => choose({ batch: row.batch })}>
        ${formatCount(row.batch)}</button></td>
      <td class="to-right">${formatBytes(row.bytes)}</td>
      <td class="to-right">${formatCount(row.steps)}</td>
      <td class="to-right">× ${row.noise.toPrecision(2)}</td>
      <td class="to-right">${Number(row.rate.toPrecision(2))}</td></tr>`,
    )}
    </tbody></table></div>`;
}

/** Linear for SGD (Goyal et al. 2017), square root for Adam (Malladi et al. 2022). */
function rateOf(optimizer, batch) {
  const power = optimizer === "adam" ? 0.5 : 1;
  return BASE_RATES[optimizer] * (batch / BASE_BATCH) ** power;
}
