/** Chapter 3: the four parts, by hand and as the plan counts them. */

import { Badge } from "memfit/learn/bench";
import { Chapter, Para, Rich } from "memfit/learn/text";
import {
  bytesByHand,
  CLASSES,
  FLOAT32_BYTES,
  HIDDEN,
  IMAGES,
  inputsOf,
  keptByHand,
  LABEL_BYTES,
  parametersOf,
  partsByHand,
  productText,
  STATE_NUMBERS,
  sumOf,
} from "memfit/learn/world";
import { formatBytes, formatCount, formatShare } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { TAUGHT } from "memfit/ui/parts";

const AT_PEAK = [
  "parameters",
  "gradients",
  "optimizer",
  "batch",
  "activations",
  "temporaries",
  "workspaces",
  "cache",
  "context",
];

/** Chapter 3. */
export function PartsChapter({ number, world, now, parts }) {
  const byHand = partsByHand(world);
  return html`<${Chapter} number=${number} id="parts">
    <${Para} of="learn.parts.what" />
    <ol class="learn-four" data-test="four">
      ${TAUGHT.map(
        ({ name, badge }) => html`<${Part} key=${name} name=${name} badge=${badge}
        world=${world} byHand=${byHand[name]} counted=${parts[name]}
        total=${sumOf(parts)} />`,
      )}
    </ol>
    <${Peak} now=${now} parts=${parts} />
  <//>`;
}

function Part({ name, badge, world, byHand, counted, total }) {
  return html`<li class="learn-part" data-test=${`part-${name}`}
      style=${{ "--part": `var(--part-${name})` }}>
    <h3><${Badge} part=${name} text=${badge} />${t(`part.${name}`)}
      <span class="part-size number"><b data-test=${`counted-${name}`} data-bytes=${counted}>
        ${formatBytes(counted)}</b>${" "}
        <span class="muted">${formatShare(counted / total)}</span></span>
    </h3>
    <${Para} of=${`learn.parts.${name}`} values=${{ data: IMAGES[world.image].name }} />
    ${
      name === "activations"
        ? html`<${Kept} world=${world} byHand=${byHand} />`
        : html`<p class="learn-formula number" data-test=${`formula-${name}`}>
          ${formulaOf(name, world)}${" "}
          <span class="result">${bytesText(byHand)}</span></p>`
    }
    <${Agrees} byHand=${byHand} counted=${counted} />
  </li>`;
}

/** Whether the arithmetic by hand comes to what the trace says, to the byte. */
function Agrees({ byHand, counted }) {
  const isSame = byHand === counted;
  const key = isSame ? "learn.parts.same" : "learn.parts.different";
  return html`<p class=${`learn-agrees small ${isSame ? "is-good" : "is-bad"}`} data-test="agrees">
    ${isSame ? "✓" : "≠"} ${t(key, { bytes: formatCount(counted) })}</p>`;
}

function formulaOf(name, world) {
  const inputs = formatCount(inputsOf(world));
  const count = formatCount(parametersOf(world));
  const [channels, height, width] = IMAGES[world.image].shape;
  const batch = formatCount(world.batch);
  switch (name) {
    case "parameters":
      return (
        `${inputs} × ${HIDDEN} + ${HIDDEN} + ${HIDDEN} × ${CLASSES} + ${CLASSES} = ${count}` +
        ` ${t("learn.parts.unit")} × ${FLOAT32_BYTES} B`
      );
    case "gradients":
      return `${count} ${t("learn.parts.unit")} × ${FLOAT32_BYTES} B`;
    case "optimizer":
      return `${STATE_NUMBERS[world.optimizer]} × ${count} × ${FLOAT32_BYTES} B`;
    default:
      return (
        `${batch} × ${channels} × ${height} × ${width} × ${FLOAT32_BYTES} B` +
        ` + ${batch} × ${LABEL_BYTES} B`
      );
  }
}

function bytesText(bytes) {
  const exact = `= ${formatCount(bytes)} B`;
  return bytes < 1024 ? exact : `${exact} = ${formatBytes(bytes)}`;
}

function Kept({ world, byHand }) {
  return html`<div class="wide"><table class="learn-kept" data-test="kept"><tbody>
    ${keptByHand(world).map(
      (tensor) => html`<tr key=${tensor.key}>
      <th scope="row"><${Rich} of=${`learn.kept.${tensor.key}`} /></th>
      <td class="to-right">${productText(tensor.factors)} × ${tensor.each} B</td>
      <td class="to-right">${formatCount(bytesByHand(tensor))} B</td>
    </tr>`,
    )}
    <tr class="sum-row"><th scope="row">${t("word.total")}</th><td></td>
      <td class="to-right">${bytesText(byHand).slice(2)}</td></tr>
  </tbody></table></div>`;
}

/** What the plan shows is one instant: here it is, and why it differs. */
function Peak({ now, parts }) {
  const missing = parts.gradients - now.parts.gradients;
  const gone = parts.activations - now.parts.activations;
  const values = {
    phase: t(`phase.${now.peak.phase}`),
    missing: formatCount(missing),
    gone: formatCount(gone),
    hidden: HIDDEN,
    bias: formatCount(HIDDEN * FLOAT32_BYTES),
  };
  const isBias = missing === HIDDEN * FLOAT32_BYTES;
  return html`<details class="learn-peak" data-test="peak">
    <summary>${t("learn.peak.title")}</summary>
    <${Para} of="learn.peak.what" values=${values} />
    <div class="wide"><table data-test="peak-parts"><tbody>
      ${AT_PEAK.map(
        (name) => html`<tr key=${name}>
        <th scope="row"><span class="swatch" style=${{ background: `var(--part-${name})` }}></span>
          ${t(`part.${name}`)}</th>
        <td class="to-right" data-part=${name}>${formatCount(now.parts[name])} B</td>
        <td class="to-right muted">${formatBytes(now.parts[name])}</td></tr>`,
      )}
      <tr class="sum-row"><th scope="row">${t("word.total")}</th>
        <td class="to-right">${formatCount(now.totalBytes)} B</td>
        <td class="to-right muted">${formatBytes(now.totalBytes)}</td></tr>
    </tbody></table></div>
    ${
      missing > 0 &&
      html`<${Para} of=${isBias ? "learn.peak.bias" : "learn.peak.gradients"}
      values=${values} />`
    }
    ${gone > 0 && html`<${Para} of="learn.peak.activations" values=${values} />`}
    <${Para} of="learn.peak.rest" muted />
  </details>`;
}
