/** The bench of the Learn tab: what is trained, and the memory that its four parts fill. */

import { COURSE, IMAGES, MAX_BATCH, OPTIMIZERS, PRECISIONS, sumOf } from "memfit/learn/world";
import { formatBytes, formatCount, formatShare } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { TAUGHT } from "memfit/ui/parts";

const STEPS_PER_DOUBLING = 8;
const LAST_STEP = STEPS_PER_DOUBLING * Math.log2(MAX_BATCH);
const MIB = 2 ** 20;

/**
 * Controls and the bar.
 * @param {{world: import("memfit/learn/world").World, choose: (change: object) => void,
 *   parts: Record<string, number>}} props
 */
export function Bench({ world, choose, parts }) {
  return html`<aside class="card bench" data-test="bench" aria-label=${t("learn.bench.title")}>
    <h2>${t("learn.bench.title")}</h2>
    <p class="muted small">${t("learn.bench.about")}</p>
    <${Choice} name="image" options=${Object.keys(IMAGES)} world=${world} choose=${choose} />
    <${Choice} name="optimizer" options=${OPTIMIZERS} world=${world} choose=${choose} />
    <${Choice} name="precision" options=${PRECISIONS} world=${world} choose=${choose} />
    <${BatchSlider} batch=${world.batch} choose=${choose} />
    <${MemoryBar} parts=${parts} />
    <${Legend} parts=${parts} />
    <button type="button" class="quiet small" data-test="course-choice"
      onClick=${() => choose(COURSE)}>${t("learn.bench.reset")}</button>
  </aside>`;
}

function Choice({ name, options, world, choose }) {
  const label = t(`learn.choice.${name}`);
  return html`<div class="bench-choice">
    <span class="choice-label">${label}</span>
    <div class="segmented" role="group" aria-label=${label}>
      ${options.map(
        (option) => html`<button type="button" key=${option}
        data-test=${`choose-${option}`} aria-pressed=${world[name] === option}
        onClick=${() => choose({ [name]: option })}>${t(`learn.choice.${option}`)}</button>`,
      )}
    </div>
  </div>`;
}

function BatchSlider({ batch, choose }) {
  const slide = (event) =>
    choose({ batch: Math.round(2 ** (event.target.value / STEPS_PER_DOUBLING)) });
  const type = ({ target }) => {
    const whole = Math.round(Number(target.value)) || batch;
    target.value = Math.max(1, Math.min(MAX_BATCH, whole)); // also where the batch stays
    choose({ batch: Number(target.value) });
  };
  return html`<div class="bench-choice">
    <label class="choice-label" for="learn-batch">${t("word.batch")}</label>
    <div class="bench-slider">
      <input id="learn-batch" type="range" min="0" max=${LAST_STEP} step="1" data-test="learn-batch"
        value=${Math.round(STEPS_PER_DOUBLING * Math.log2(batch))} aria-valuetext=${String(batch)}
        onInput=${slide} />
      <input type="number" min="1" max=${MAX_BATCH} value=${batch} aria-label=${t("word.batch")}
        data-test="learn-batch-number" onChange=${type} />
    </div>
  </div>`;
}

/** The parts side by side; the scale doubles when they outgrow it. */
export function MemoryBar({ parts }) {
  const total = sumOf(parts);
  const whole = scaleOf(total);
  const words = TAUGHT.map(({ name }) => `${t(`part.${name}`)} ${formatBytes(parts[name])}`);
  return html`<div class="bench-memory">
    <div class="memory-bar" role="img" data-test="memory-bar" aria-label=${words.join(", ")}>
      ${TAUGHT.map(
        ({ name, badge }) => html`
        <span key=${name} class="memory-part" style=${{
          width: `${(100 * parts[name]) / whole}%`,
          background: `var(--part-${name})`,
        }} title=${`${t(`part.${name}`)}: ${formatBytes(parts[name])}`}>
          ${parts[name] / whole > 0.035 && badge}
        </span>`,
      )}
    </div>
    <div class="memory-scale number" aria-hidden="true">
      ${[0, 0.25, 0.5, 0.75, 1].map(
        (share) => html`
        <span key=${share}>${share ? formatBytes(share * whole).replace(".0 ", " ") : 0}</span>`,
      )}
    </div>
  </div>`;
}

/** The number of a part on its colour. */
export function Badge({ part, text }) {
  return html`<span class="part-badge" style=${{ background: `var(--part-${part})` }}>
    ${text}</span>`;
}

function Legend({ parts }) {
  const total = sumOf(parts);
  return html`<table class="bench-legend" data-test="legend"><tbody>
    ${TAUGHT.map(
      ({ name, badge }) => html`<tr key=${name}>
      <td><${Badge} part=${name} text=${badge} /></td>
      <th scope="row">${t(`part.${name}`)}</th>
      <td class="to-right" title=${`${formatCount(parts[name])} B`}>${formatBytes(parts[name])}</td>
      <td class="to-right muted">${formatShare(parts[name] / total)}</td>
    </tr>`,
    )}
    <tr class="sum-row"><td></td><th scope="row">${t("learn.bench.together")}</th>
      <td class="to-right" data-test="four-parts">${formatBytes(total)}</td><td></td></tr>
  </tbody></table>`;
}

/** The power of two of mebibytes that holds everything with some room. */
function scaleOf(total) {
  return 2 * MIB * 2 ** Math.max(0, Math.ceil(Math.log2((total * 1.02) / (2 * MIB))));
}
