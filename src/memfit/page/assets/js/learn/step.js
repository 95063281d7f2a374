/** Chapter 4: one training step, instant by instant. */

import { StackChart } from "memfit/learn/chart";
import { Chapter, Para } from "memfit/learn/text";
import { endOf, lastStep, startOf } from "memfit/learn/world";
import { formatBytes, formatCount, formatShape } from "memfit/ui/format";
import { html, useMemo, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const SHOWN = ["parameters", "gradients", "optimizer", "batch", "activations", "temporaries"];
const MOST_LISTED = 8;
const LINES = [
  ["for images, labels in loader:", "data"],
  ["    optimizer.zero_grad()", "data"],
  ["    output = model(images)", "forward"],
  ["    loss = cross_entropy(output, labels)", "forward"],
  ["    loss.backward()", "backward"],
  ["    optimizer.step()", "optimizer"],
];

/** Chapter 4. */
export function StepChapter({ number, now }) {
  const { timeline } = now;
  const stops = useMemo(() => stopsOf(timeline), [timeline]);
  const [index, setIndex] = useState(0);
  const stop = stops[index];
  const go = (step) => setIndex(Math.max(0, Math.min(stops.length - 1, index + step)));
  return html`<${Chapter} number=${number} id="step">
    <${Para} of="learn.step.what" />
    <div class="step-stops segmented" role="group" aria-label=${t("learn.step.instants")}>
      ${stops.map(
        ({ name }, place) => html`<button type="button" key=${name}
        aria-pressed=${place === index} data-test=${`stop-${name}`}
        onClick=${() => setIndex(place)}>${t(`learn.stop.${name}`)}</button>`,
      )}
    </div>
    <div class="step-body">
      <pre class="learn-code" tabindex="0">${LINES.map(
        ([line, phase]) => html`<span
        class=${phase === stop.phase ? "now" : ""}>${line}${"\n"}</span>`,
      )}</pre>
      <div class="step-words" data-test="step-words" aria-live="polite">
        <${Para} of=${wordsOf(stop, timeline)} />
        <${Alive} timeline=${timeline} position=${stop.position} />
      </div>
    </div>
    <${Timeline} timeline=${timeline} position=${stop.position} />
    <${Changes} timeline=${timeline} position=${stop.position}
      before=${index > 0 ? stops[index - 1].position : beginning(timeline)} />
    <div class="step-buttons">
      <button type="button" class="button" disabled=${index === 0} data-test="step-back"
        onClick=${() => go(-1)}>← ${t("learn.step.back")}</button>
      <button type="button" class="button primary" disabled=${index === stops.length - 1}
        data-test="step-on" onClick=${() => go(1)}>${t("learn.step.on")} →</button>
    </div>
    <${Para} of="learn.step.first" />
  <//>`;
}

/** The text of an instant; some optimizers take no room on the way. */
function wordsOf({ name, position }, timeline) {
  const isInPlace = name === "optimizer" && timeline.partsAt(position).temporaries === 0;
  return isInPlace ? "learn.step.optimizer.in_place" : `learn.step.${name}`;
}

/** The last instant of the step before. */
function beginning(timeline) {
  return startOf(timeline, "data") - 1;
}

/** The instants worth a stop, each the position of its last event. */
function stopsOf(timeline) {
  const backward = startOf(timeline, "backward");
  const optimizer = startOf(timeline, "optimizer");
  const end = endOf(timeline);
  return [
    { name: "data", phase: "data", position: startOf(timeline, "forward") - 1 },
    { name: "forward", phase: "forward", position: backward - 1 },
    { name: "peak", phase: "backward", position: fullest(timeline, backward, optimizer) },
    { name: "backward", phase: "backward", position: optimizer - 1 },
    { name: "optimizer", phase: "optimizer", position: fullest(timeline, optimizer, end) },
    { name: "end", phase: "", position: end - 1 },
  ];
}

/** Where most bytes of tensors are alive. */
function fullest(timeline, from, to) {
  const { partBytes, parts } = timeline;
  const totals = SHOWN.map((name) => partBytes[parts.indexOf(name)]);
  let best = from;
  const sumAt = (position) => totals.reduce((sum, bytes) => sum + bytes[position], 0);
  for (let position = from; position < to; position += 1) {
    if (sumAt(position) > sumAt(best)) best = position;
  }
  return best;
}

function Alive({ timeline, position }) {
  const bytes = timeline.partsAt(position);
  return html`<table class="learn-alive number" data-test="alive"><tbody>
    ${SHOWN.map(
      (name) => html`<tr key=${name} class=${bytes[name] ? "" : "muted"}>
      <th scope="row"><span class="swatch" style=${{ background: `var(--part-${name})` }}></span>
        ${t(`part.${name}`)}</th>
      <td class="to-right" data-part=${name}>${formatCount(bytes[name])} B</td></tr>`,
    )}
  </tbody></table>`;
}

function Timeline({ timeline, position }) {
  const { parts, partBytes } = timeline;
  const count = endOf(timeline); // what follows is the end of the trace, not of training
  const areas = SHOWN.map((name) => ({ name, values: partBytes[parts.indexOf(name)] }));
  const bands = timeline.bands.filter((band) => band.to <= count);
  const second = startOf(timeline, "data", lastStep(timeline));
  return html`<figure class="learn-figure" data-test="step-chart">
    <${StackChart} areas=${areas} count=${count} bands=${bands} cursor=${position}
      marks=${[{ at: 0, text: t("learn.step.one") }, { at: second, text: t("learn.step.two") }]}
      isStepped=${true} label=${t("learn.step.chart")} />
    <figcaption class="muted small">${t("learn.step.caption", {
      workspaces: formatBytes(Math.max(...partBytes[parts.indexOf("workspaces")])),
    })}</figcaption>
  </figure>`;
}

/** What came and what went since the stop before. */
function Changes({ timeline, position, before }) {
  const [then, here] = [before, position].map((place) => timeline.liveAt(place));
  const came = here.filter((number) => !then.includes(number));
  const went = then.filter((number) => !here.includes(number));
  return html`<div class="step-changes">
    <${Tensors} title="learn.step.came" numbers=${came} timeline=${timeline} />
    <${Tensors} title="learn.step.went" numbers=${went} timeline=${timeline} />
  </div>`;
}

function Tensors({ title, numbers, timeline }) {
  const found = numbers
    .map((number) => timeline.describe(number))
    .filter((tensor) => SHOWN.includes(tensor.part) && tensor.sizeBytes > 0)
    .sort((a, b) => b.sizeBytes - a.sizeBytes);
  const rest = found.length - MOST_LISTED;
  return html`<div>
    <h3>${t(title)}</h3>
    <ul class="tensors">
      ${found.slice(0, MOST_LISTED).map(
        (tensor) => html`<li key=${tensor.number}>
        <span class="swatch" style=${{ background: `var(--part-${tensor.part})` }}></span>
        <span class="mono">${formatShape(tensor.shape) || "1"} ${tensor.dtype}</span>${" "}
        <span class="muted small">${t(`part.${tensor.part}`)} · ${formatBytes(tensor.sizeBytes)}
        </span></li>`,
      )}
      ${rest > 0 && html`<li class="muted small">${t("learn.step.more", { count: rest })}</li>`}
      ${found.length === 0 && html`<li class="muted small">${t("learn.step.nothing")}</li>`}
    </ul>
  </div>`;
}
