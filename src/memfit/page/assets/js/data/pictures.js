/** Samples, one image as numbers, histograms, and what the loader delivers. */

import { PixelView } from "memfit/data/pixels";
import { English, visible } from "memfit/data/words";
import { formatCount, formatShape, formatShare } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const WIDTH = 640;
const HEIGHT = 180;
const CUT = 3; // black or white alone may be so much higher than the rest
const NAMES = { 1: ["grey"], 3: ["red", "green", "blue"] };

/** A grid of samples with their classes. */
export function Samples({ data }) {
  if (!data.samples.length) return null;
  return html`<section class="card" data-test="samples">
    <h2>${t("data.samples")} <span class="muted small">${t("data.samples.of")}</span></h2>
    <ul class="sample-grid">
      ${data.samples.map(
        (sample) => html`<li key=${sample.name}>
        <img src=${sample.png} alt=${visible(sample.label ?? sample.name)} loading="lazy"
          title=${`${visible(sample.name)} · ${sample.width} × ${sample.height}`} />
        <span class="small">${visible(sample.label ?? "")}</span></li>`,
      )}
    </ul>
  </section>`;
}

/** The image whose values differ most. */
export function Sample({ data }) {
  const { sample } = data;
  if (!sample) return null;
  const { view } = sample;
  const isReduced = view.width !== sample.width || view.height !== sample.height;
  const title = visible(sample.label ? `${sample.label} · ${sample.name}` : sample.name);
  return html`<section class="card" data-test="sample">
    <h2>${t("data.sample")}</h2>
    <p class="muted small">${t("data.sample.of", { ...sample, name: title })}${" "}
      ${isReduced && t("data.sample.reduced", view)}</p>
    <${PixelView} view=${view} label=${title} />
  </section>`;
}

/** How often each value occurs, channel by channel. */
export function Histogram({ data }) {
  const known = data.statistics;
  if (!known) return null;
  const shares = known.histograms.map((counts) => counts.map((count) => count / known.pixels));
  const top = topOf(shares);
  const names = NAMES[shares.length];
  const cut = [0, 255]
    .map((value) => [value, Math.max(...shares.map((row) => row[value]))])
    .filter(([, share]) => share > top);
  return html`<section class="card" data-test="histogram">
    <h2>${t("data.histogram")}</h2>
    <p class="muted small">${t("data.histogram.of", { split: known.of })}</p>
    <svg class="histogram" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none"
      role="img" aria-label=${t("data.histogram")}>
      ${shares.map(
        (row, k) => html`<${Curve} key=${k} row=${row} top=${top} name=${names[k]} />
        <${Moments} mean=${known.mean[k]} std=${known.std[k]} place=${k} name=${names[k]} />`,
      )}
    </svg>
    <div class="histogram-scale muted small number" aria-hidden="true">
      ${[0, 64, 128, 192, 255].map((value) => html`<span key=${value}>${value}</span>`)}</div>
    ${cut.map(
      ([value, share]) => html`<p key=${value} class="muted small">
      ${t("data.histogram.cut", { value, share: formatShare(share) })}</p>`,
    )}
    <div class="wide"><table class="number"><thead><tr><th>${t("data.channel")}</th>
      <th>${t("data.mean")}</th><th>${t("data.std")}</th></tr></thead><tbody>
      ${names.map(
        (name, k) => html`<tr key=${name}><th scope="row">
        <span class=${`swatch channel-${name}`}></span>${t(`pixels.${name}`)}</th>
        <td>${known.mean[k].toFixed(4)}</td><td>${known.std[k].toFixed(4)}</td></tr>`,
      )}
    </tbody></table></div>
  </section>`;
}

function Curve({ row, top, name }) {
  const step = WIDTH / 256;
  const points = row.map((share, value) => {
    const y = (HEIGHT * (1 - Math.min(1, share / top))).toFixed(1);
    return `L${(value * step).toFixed(1)},${y}L${((value + 1) * step).toFixed(1)},${y}`;
  });
  return html`<path class=${`spread-curve channel-${name}`}
    d=${`M0,${HEIGHT}${points.join("")}L${WIDTH},${HEIGHT}Z`} />`;
}

function Moments({ mean, std, place, name }) {
  const y = 8 + 9 * place;
  const x = (value) => Math.max(0, Math.min(WIDTH, value * WIDTH));
  return html`<g class=${`spread-moments channel-${name}`}>
    <line x1=${x(mean)} x2=${x(mean)} y1=${y} y2=${HEIGHT} class="mean" />
    <line x1=${x(mean - std)} x2=${x(mean + std)} y1=${y} y2=${y} class="deviation" /></g>`;
}

/** The highest share shown: all, unless the ends alone are far above the rest. */
function topOf(shares) {
  const inner = Math.max(1e-9, ...shares.map((row) => Math.max(...row.slice(1, 255))));
  const all = Math.max(...shares.map((row) => Math.max(...row)));
  return Math.min(all, CUT * inner);
}

/** The first batch as the model gets it. */
export function Delivered({ data }) {
  const { delivered } = data;
  return html`<section class="card" data-test="delivered">
    <h2>${t("data.delivered")}</h2>
    ${
      delivered.problem
        ? html`<${NotDelivered} problem=${delivered.problem} />`
        : html`<p>${t("data.delivered.what")}${" "}
          ${delivered.is_resized && t("data.delivered.resized")}</p>
        <div class="delivered-batches">${delivered.batches.map(
          (batch, index) => html`
          <${Batch} key=${index} batch=${batch} />`,
        )}</div>`
    }
  </section>`;
}

/** Why there is no batch. @param {{problem: {key: string, text: string}}} props */
function NotDelivered({ problem }) {
  if (problem.key !== "other") return html`<p>${t(`data.delivered.${problem.key}`)}</p>`;
  return html`<p class="error"><${English} text=${problem.text} /></p>`;
}

function Batch({ batch }) {
  const words = batch.augment.join(", ");
  const number = (value) => value.toFixed(2);
  const range = Object.fromEntries(["min", "max", "mean", "std"].map((k) => [k, number(batch[k])]));
  const bytes = {
    images: formatCount(batch.bytes),
    labels: formatCount(batch.label_bytes),
    total: formatCount(batch.bytes + batch.label_bytes),
  };
  const rows = [
    ["data.tensor", `${formatShape(batch.shape)} ${batch.dtype}`],
    ["data.labels", `${formatShape(batch.label_shape)} ${batch.label_dtype}`],
    ["data.range", t("data.range.text", range)],
    ["data.bytes", t("data.bytes.text", bytes)],
  ];
  return html`<div>
    <h3>${words ? t("data.augmented", { words }) : t("data.plain")}</h3>
    <div class="thumbnails">${batch.pngs.map(
      (png, index) => html`<img key=${index} src=${png}
      alt="" />`,
    )}</div>
    <table class="small"><tbody>${rows.map(
      ([key, value]) => html`<tr key=${key}>
      <th scope="row">${t(key)}</th><td class="number">${value}</td></tr>`,
    )}</tbody></table>
  </div>`;
}
