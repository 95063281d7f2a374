/** Chapters 1 and 2: what an image is to the model, and what a model is. */

import { PixelView } from "memfit/data/pixels";
import { exampleOf } from "memfit/learn/pictures";
import { Chapter, Para } from "memfit/learn/text";
import { CLASSES, FLOAT32_BYTES, HIDDEN, IMAGES, inputsOf, parametersOf } from "memfit/learn/world";
import { formatBytes, formatCount } from "memfit/ui/format";
import { html, useMemo } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

/** Chapter 1. */
export function ImageChapter({ number, world }) {
  const view = useMemo(() => exampleOf(world.image), [world.image]);
  const shape = IMAGES[world.image].shape;
  const inputs = inputsOf(world);
  const values = {
    shape: shape.join(" × "),
    inputs: formatCount(inputs),
    bytes: formatCount(inputs),
    floats: formatCount(inputs * FLOAT32_BYTES),
    data: IMAGES[world.image].name,
  };
  return html`<${Chapter} number=${number} id="image">
    <${Para} of=${`learn.image.${world.image}`} values=${values} />
    <${PixelView} view=${view} label=${t(`learn.image.alt.${world.image}`)} />
    <${Para} of="learn.image.batch" />
    <${ShapeBlocks} batch=${world.batch} shape=${shape} />
    <${Para} of="learn.image.size" values=${values} />
  <//>`;
}

function ShapeBlocks({ batch, shape }) {
  const sides = [
    ["N", batch],
    ["C", shape[0]],
    ["H", shape[1]],
    ["W", shape[2]],
  ];
  return html`<div class="learn-shape" data-test="shape">
    ${sides.map(
      ([letter, size], index) => html`
      ${index > 0 && html`<span class="shape-times" aria-hidden="true">×</span>`}
      <span class="shape-side" key=${letter}>
        <b class="number">${formatCount(size)}</b>
        <span class="muted small">${letter} · ${t(`learn.image.${letter}`)}</span>
      </span>`,
    )}
  </div>`;
}

/** Chapter 2. */
export function ModelChapter({ number, world }) {
  const inputs = inputsOf(world);
  const total = parametersOf(world);
  const values = {
    total: formatCount(total),
    bytes: formatCount(FLOAT32_BYTES * total),
    size: formatBytes(FLOAT32_BYTES * total),
    inputs: formatCount(inputs),
  };
  return html`<${Chapter} number=${number} id="model">
    <${Para} of="learn.model.what" />
    <pre class="learn-code" tabindex="0">${[
      "model = nn.Sequential(",
      "    nn.Flatten(),",
      `    nn.Linear(${inputs}, ${HIDDEN}),`,
      "    nn.ReLU(),",
      `    nn.Linear(${HIDDEN}, ${CLASSES}),`,
      ")",
    ].join("\n")}</pre>
    <${LayerTable} world=${world} />
    <${Para} of="learn.model.rule" />
    <${Para} of="learn.model.bytes" values=${values} />
  <//>`;
}

function LayerTable({ world }) {
  const { batch } = world;
  const inputs = inputsOf(world);
  /** @returns {[string, number]} */
  const linear = (from, to) => [`${formatCount(from)} × ${to} + ${to}`, from * to + to];
  /** @type {[string, number, [string, number]|null][]} */
  const rows = [
    ["Flatten", inputs, null],
    ["Linear", HIDDEN, linear(inputs, HIDDEN)],
    ["ReLU", HIDDEN, null],
    ["Linear", CLASSES, linear(HIDDEN, CLASSES)],
  ];
  return html`<div class="wide"><table class="learn-layers" data-test="layers">
    <thead><tr><th>${t("learn.model.layer")}</th><th>${t("learn.model.output")}</th>
      <th>${t("learn.model.formula")}</th>
      <th class="to-right">${t("learn.model.count")}</th></tr></thead>
    <tbody>
      ${rows.map(
        ([name, width, made], index) => html`<tr key=${index}>
        <td><code>${name}</code></td>
        <td>${formatCount(batch)} × ${formatCount(width)}</td>
        <td class="muted">${made ? made[0] : t("learn.model.none")}</td>
        <td class="to-right">${made ? formatCount(made[1]) : "0"}</td>
      </tr>`,
      )}
      <tr class="sum-row"><td>${t("word.total")}</td><td></td><td></td>
        <td class="to-right" data-test="parameter-count">
          ${formatCount(parametersOf(world))}</td></tr>
    </tbody></table></div>`;
}
