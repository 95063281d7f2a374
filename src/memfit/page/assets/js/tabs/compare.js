/** The Compare tab: two plans side by side, and what was predicted beside what was measured. */

import { MemoryCurve } from "memfit/charts/curve";
import { PartsBar } from "memfit/memory/parts";
import { viewAt } from "memfit/memory/view";
import { readRecord } from "memfit/plan/load";
import { MeasuredTable, measuredOn, SnapshotTable } from "memfit/plan/measured";
import { knobWords } from "memfit/plan/script";
import { cardOf, setPlanState, usePlanState } from "memfit/plan/store";
import { hasDocument, isServed } from "memfit/source/bundle";
import { formatBytes, formatCount, formatSigned } from "memfit/ui/format";
import { html, useMemo, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { PARTS } from "memfit/ui/parts";

export const tab = {
  id: "compare",
  title: "tab.compare",
  isThere: () => isServed || hasDocument("plan"),
  Tab: CompareTab,
};

function CompareTab({ theme, language }) {
  const { plan, batch, choice, pinned, version } = usePlanState();
  const [opened, setOpened] = useState(/** @type {Side|null} */ (null));
  const [points, setPoints] = useState(/** @type {MeasuredPoint[]} */ ([]));
  const current = useMemo(
    () => plan && { plan, batch, card: cardOf(plan.document, choice) },
    [plan, batch, choice],
  );
  const sides = { a: sideOf(pinned), b: sideOf(opened ?? current) };
  const take = (record) => {
    if (record.kind === "measure") setPoints(record.points);
    else setOpened(openedSide(record.plan, current));
  };
  const measured = [...(current ? measuredOn(plan.document, current.card) : []), ...points];
  return html`<div class="compare">
    <section class="card" data-test="ab">
      <div class="card-head"><h2>${t("compare.title")}</h2></div>
      <p class="muted small">${t("compare.about")}</p>
      <div class="toolbar">
        <${Opener} take=${take} />
        ${
          opened &&
          html`<button type="button" class="button" data-test="use-current"
          onClick=${() => setOpened(null)}>${t("compare.useCurrent")}</button>`
        }
        ${
          pinned &&
          html`<button type="button" class="button" data-test="swap"
          onClick=${() => swap(pinned, opened ?? current, setOpened)}>
          ${t("compare.swap")}</button>`
        }
      </div>
      ${
        sides.a
          ? html`<${Pair} ...${sides} />`
          : html`
        <p class="nothing muted" data-test="no-a">${t("compare.noA")}</p>
        ${
          current &&
          html`<button type="button" class="button primary" data-test="keep-here"
          onClick=${() => setPlanState({ pinned: current })}>${t("compare.keepHere")}</button>`
        }`
      }
    </section>
    ${sides.a && sides.b && html`<${Curves} ...${{ ...sides, theme, language, version }} />`}
    ${current && html`<${MeasuredTable} plan=${plan} card=${current.card} points=${measured} />`}
    <${SnapshotTable} view=${sides.b?.view ?? null} />
  </div>`;
}

function Opener({ take }) {
  const [error, setError] = useState(/** @type {string|null} */ (null));
  const open = async ({ target }) => {
    const [file] = target.files;
    if (!file) return;
    try {
      take(await readRecord(file));
      setError(null);
    } catch (problem) {
      setError(problem.message);
    }
    target.value = "";
  };
  return html`<label class="button file">${t("compare.open")}
      <input type="file" accept=".json,application/json" data-test="open-record"
        onChange=${open} /></label>
    ${error && html`<p class="error small" role="alert" data-test="record-error">${error}</p>`}`;
}

/** A plan, a batch and a card, with what they come to; null when there is nothing to show. */
function sideOf(side) {
  if (!side?.plan?.knows(side.batch)) return null;
  return { ...side, view: viewAt(side.plan, side.card, side.batch) };
}

/** An opened plan at the batch and on the card that it was made for. */
function openedSide(plan, current) {
  const { document } = plan;
  return { plan, batch: document.batch_size, card: document.gpu ?? current?.card ?? document.card };
}

function swap(pinned, other, setOpened) {
  setPlanState({ pinned: other });
  setOpened(pinned);
}

function Pair({ a, b }) {
  return html`<div class="pair-verdicts">
      <${Side} name="A" side=${a} /><${Side} name="B" side=${b} /></div>
    ${b && html`<${Differences} a=${a} b=${b} />`}`;
}

function Side({ name, side }) {
  if (!side) return html`<div class="side"><b>${name}</b></div>`;
  const { view, card, plan } = side;
  return html`<div class=${`side verdict ${view.verdict}`} data-test=${`side-${name}`}>
    <p><b class="side-name">${name}</b> <b class="tone" data-test=${`verdict-${name}`}>
      ${t(`verdict.${view.verdict}`)}</b></p>
    <p class="small"><b>${plan.document.model.name}</b> · ${subjectOf(plan.document, view.batch)}
      ${" · "}${card.name}</p>
    <${PartsBar} parts=${view.parts} totalBytes=${view.totalBytes} limitBytes=${card.usable_bytes}
      test=${`parts-${name}`} />
  </div>`;
}

function subjectOf({ recipe, script }, batch) {
  if (script) return knobWords(script.knob, batch);
  return `${recipe.precision} · ${t("compare.batch", { batch: formatCount(batch) })}`;
}

function Differences({ a, b }) {
  const rows = [
    ...PARTS.map((part) => [t(`part.${part}`), a.view.parts[part], b.view.parts[part], part]),
    [t("word.total"), a.view.totalBytes, b.view.totalBytes, "total"],
    [t("compare.allocated"), a.view.peakAllocatedBytes, b.view.peakAllocatedBytes, "allocated"],
    [t("compare.reserved"), a.view.peakReservedBytes, b.view.peakReservedBytes, "reserved"],
  ];
  const most = Math.max(1, ...rows.slice(0, PARTS.length).map(([, x, y]) => Math.abs(y - x)));
  return html`<div class="wide"><table class="differences" data-test="differences">
    <thead><tr><th></th><th class="right">A</th><th class="right">B</th>
      <th class="right">${t("compare.difference")}</th><th class="gap"></th></tr></thead>
    <tbody>${rows.map(
      ([label, x, y, id]) => html`<tr key=${id} data-test=${`row-${id}`}
      class=${id === "total" ? "strong" : ""}>
      <td>${
        PARTS.includes(id) &&
        html`<i class="swatch"
        style=${{ background: `var(--part-${id})` }}></i>`
      }${label}</td>
      <td class="right">${formatBytes(x)}</td><td class="right">${formatBytes(y)}</td>
      <td class="right" data-bytes=${y - x}>${formatSigned(y - x)}</td>
      <td class="gap">${PARTS.includes(id) && html`<${Gap} share=${(y - x) / most} />`}</td>
    </tr>`,
    )}</tbody></table></div>`;
}

function Gap({ share }) {
  const width = `${50 * Math.abs(share)}%`;
  const style = share < 0 ? { right: "50%", width } : { left: "50%", width };
  const kind = share < 0 ? "less" : "more-bytes";
  return html`<span class="gap-bar"><i class=${kind} style=${style}></i></span>`;
}

function Curves({ a, b, theme, language, version }) {
  const curves = useMemo(
    () => [
      { label: "A ", plan: a.plan, card: a.card },
      { label: "B ", plan: b.plan, card: b.card },
    ],
    [a.plan, a.card, b.plan, b.card],
  );
  const last = Math.max(8, Math.ceil(1.3 * Math.max(a.batch, b.batch)));
  return html`<section class="card"><h2>${t("curve.title")}</h2>
    <${MemoryCurve} ...${{ curves, last, theme, language, version }} limits=${null} measured=${[]}
      limitBytes=${b.card.usable_bytes} batch=${b.batch} choose=${() => {}}
      label=${t("curve.title")} /></section>`;
}
