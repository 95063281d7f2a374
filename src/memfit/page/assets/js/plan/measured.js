/** What was predicted beside what was measured, point by point. */

import { readDocument } from "memfit/source/bundle";
import { formatBytes, formatCount, formatSigned } from "memfit/ui/format";
import { html, useEffect, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { SNAPSHOT_PARTS } from "memfit/ui/parts";

/** @type {MeasuredPoint[]} */
const NONE = [];
/** @type {[string, string, (at: BatchPlan, card: Card) => number][]} */
const READINGS = [
  ["allocated", "peak_allocated_bytes", (at) => at.peakAllocatedBytes],
  ["reserved", "peak_reserved_bytes", (at) => at.peakReservedBytes],
  ["total", "total_bytes", (at, card) => at.peakReservedBytes + card.context_bytes],
];

/** A document's recorded points, while the card they were measured on is looked at. */
export function measuredOn(document, card) {
  return document.gpu?.key === card.key ? document.measured : NONE;
}

/** @param {{plan: Plan, card: Card, points: MeasuredPoint[]}} properties */
export function MeasuredTable({ plan, card, points }) {
  const rows = points
    .filter((point) => point.batch_size > 0 && plan.knows(point.batch_size))
    .flatMap((point) => readingsOf(plan, card, point));
  return html`<section class="card" data-test="measured">
    <h2>${t("compare.measured")}</h2>
    ${
      rows.length
        ? html`<div class="wide"><table><thead><tr>
        <th class="right">${t("word.batch")}</th><th></th>
        <th class="right">${t("compare.predicted")}</th><th class="right">${t("compare.read")}</th>
        <th class="right">${t("compare.error")}</th><th>${t("compare.source")}</th></tr></thead>
      <tbody>${rows.map(
        (row, index) => html`<tr key=${index} data-test="measured-row">
        <td class="right">${formatCount(row.batch)}</td><td>${t(`compare.${row.name}`)}</td>
        <td class="right">${formatBytes(row.predicted)}</td>
        <td class="right">${formatBytes(row.measured)}</td>
        <td class="right"><b>${row.error}</b></td><td class="muted small">${row.source}</td>
      </tr>`,
      )}</tbody></table></div>`
        : html`<p class="muted small">${t("compare.noMeasured")}</p>`
    }
  </section>`;
}

function readingsOf(plan, card, point) {
  const at = plan.at(point.batch_size);
  return READINGS.filter(([, key]) => point[key] > 0).map(([name, key, predict]) => {
    const predicted = predict(at, card);
    const error = (100 * (predicted - point[key])) / point[key];
    return {
      name,
      predicted,
      measured: point[key],
      batch: point.batch_size,
      source: point.source,
      error: `${error >= 0 ? "+" : "−"}${Math.abs(error).toFixed(2)} %`,
    };
  });
}

/** A snapshot's peak beside the plan's. @param {{view: View}} properties */
export function SnapshotTable({ view }) {
  const [document, setDocument] = useState(/** @type {ExplainDocument|null} */ (null));
  useEffect(() => {
    readDocument("explain").then(setDocument);
  }, []);
  if (!document || !view) return null;
  const { summary } = document;
  const rows = [
    ...SNAPSHOT_PARTS.slice(0, -1).map((part) => [
      part,
      t(`part.${part}`),
      view.parts[part] ?? 0,
      summary.parts[part] ?? 0,
    ]),
    ["allocated", t("compare.allocated"), view.peakAllocatedBytes, summary.peak_allocated_bytes],
    ["reserved", t("compare.reserved"), view.peakReservedBytes, summary.peak_reserved_bytes],
  ];
  return html`<section class="card" data-test="snapshot-table">
    <h2>${t("compare.snapshot")}</h2>
    <p class="muted small">${t("compare.snapshotAbout", { name: document.name })}</p>
    <div class="wide"><table><thead><tr><th></th><th class="right">${t("compare.predicted")}</th>
      <th class="right">${t("tab.explain")}</th><th class="right">${t("compare.gap")}</th></tr>
    </thead><tbody>${rows.map(
      ([id, label, predicted, recorded]) => html`
      <tr key=${id} data-test=${`snapshot-${id}`}><td>${label}</td>
        <td class="right">${formatBytes(predicted)}</td>
        <td class="right">${formatBytes(recorded)}</td>
        <td class="right" data-bytes=${recorded - predicted}>${formatSigned(recorded - predicted)}
        </td></tr>`,
    )}</tbody></table></div></section>`;
}
