/** The Snapshot tab: a memory snapshot of somebody's GPU, explained. */

import { Tape } from "memfit/engine/tape";
import { Timeline } from "memfit/engine/timeline";
import { MemoryExplorer } from "memfit/memory/explorer";
import { PartsBar } from "memfit/memory/parts";
import { hasDocument, readDocument } from "memfit/source/bundle";
import { formatBytes, formatCount, formatShare, shortOperator } from "memfit/ui/format";
import { html, useEffect, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { SNAPSHOT_PARTS } from "memfit/ui/parts";

export const tab = {
  id: "explain",
  title: "tab.explain",
  isThere: () => hasDocument("explain"),
  Tab: ExplainTab,
};

/** The recorded timeline of an explain document: nothing is replayed. */
export function recordedTimeline({ tape: columns }) {
  const tape = new Tape(columns);
  const recorded = {
    allocated: Float64Array.from(columns.allocated),
    reserved: Float64Array.from(columns.reserved),
    retries: 0,
    outOfMemory: null,
  };
  return new Timeline(tape, tape.sizesAt(1), recorded, 1);
}

function ExplainTab({ theme, language }) {
  const [opened, setOpened] = useState(
    /** @type {{document: ExplainDocument, timeline: Timeline}|null} */ (null),
  );
  const [error, setError] = useState(/** @type {Told|null} */ (null));
  const [selected, setSelected] = useState(/** @type {number|null} */ (null));
  useEffect(() => {
    readDocument("explain")
      .then((document) => setOpened({ document, timeline: recordedTimeline(document) }))
      .catch(setError);
  }, []);
  if (error) return html`<p class="error" role="alert">${t("word.error")}: ${error.message}</p>`;
  if (!opened) return html`<section class="card">${t("word.loading")}</section>`;
  const { document, timeline } = opened;
  const failures = document.summary.out_of_memory;
  const limitBytes = failures.at(-1)?.capacity_bytes ?? null;
  return html`<div class="explain" data-test="explain">
    <${Summary} document=${document} most=${timeline.partsMost} limitBytes=${limitBytes} />
    <${MemoryExplorer} ...${{ timeline, limitBytes, selected, theme, language }} contextBytes=${0}
      select=${setSelected} focus=${null} title=${t("explain.timeline")} />
    <${Biggest} items=${document.summary.biggest} />
    <${Facts} facts=${document.facts} />
  </div>`;
}

function Summary({ document, most, limitBytes }) {
  const { summary } = document;
  const { peak, parts, out_of_memory: failures } = summary;
  const values = {
    phase: t(`phase.${peak.phase}`),
    module: peak.where || "–",
    operator: shortOperator(peak.operator) || "–",
  };
  return html`<section class=${`card verdict ${failures.length ? "no" : "plain"}`}>
    <p class="model-name"><b>${document.name}</b> <span class="muted">
      ${t("explain.device", { device: document.device })}</span></p>
    <div class="verdict-head">
      <h2 class="words" data-test="explain-title">${t(
        failures.length ? "explain.oom" : "explain.peak",
        { size: formatBytes(summary.peak_allocated_bytes) },
      )}</h2>
      <div class="stats">
        <${Stat} label=${t("compare.allocated")} bytes=${summary.peak_allocated_bytes} />
        <${Stat} label=${t("compare.reserved")} bytes=${summary.peak_reserved_bytes} />
      </div>
    </div>
    <${PartsBar} parts=${withAll(parts)} most=${most} totalBytes=${summary.reserved_at_peak_bytes}
      limitBytes=${limitBytes} names=${SNAPSHOT_PARTS.slice(0, -1)} />
    <p class="peak-line small"><span>${t("verdict.peakAt", values)}</span></p>
    <${Sureness} sure=${summary.sure} />
    ${failures.map((failure, index) => html`<${Failure} key=${index} failure=${failure} />`)}
  </section>`;
}

function withAll(parts) {
  return { ...Object.fromEntries(SNAPSHOT_PARTS.map((part) => [part, 0])), ...parts };
}

function Stat({ label, bytes }) {
  return html`<div class="stat still"><span class="muted small">${label}</span>
    <b class="number" title=${`${formatCount(bytes)} B`}>${formatBytes(bytes)}</b></div>`;
}

/** How much of the peak belongs to its part for certain. */
function Sureness({ sure }) {
  const totals = { certain: 0, likely: 0, unknown: 0 };
  for (const levels of Object.values(sure)) {
    for (const [level, bytes] of Object.entries(levels)) totals[level] += bytes;
  }
  const whole = Object.values(totals).reduce((sum, bytes) => sum + bytes, 0) || 1;
  const share = (level) => formatShare(totals[level] / whole);
  return html`<p class="small muted" data-test="sure">${t("explain.sure", {
    certain: share("certain"),
    likely: share("likely"),
    unknown: share("unknown"),
  })}</p>`;
}

function Failure({ failure }) {
  const sizes = Object.fromEntries(
    Object.entries(failure)
      .filter(([name]) => name.endsWith("_bytes"))
      .map(([name, bytes]) => [name.replace("_bytes", ""), formatBytes(bytes)]),
  );
  const part = t(`part.${failure.largest_part}`);
  return html`<div class="incomplete" data-test="oom">
    <b>${t(`explain.cause.${failure.cause}`, sizes)}</b>
    <ul>
      <li>${t("explain.asked", { ...sizes, operator: failure.operator, where: failure.where })}</li>
      <li>${t("explain.had", sizes)}</li>
      <li>${t("explain.fits", sizes)}</li>
      <li>${t("explain.most", {
        part,
        size: formatBytes(failure.parts[failure.largest_part] ?? 0),
      })}</li>
      ${
        failure.batch_share &&
        html`<li>${t("explain.batch", {
          share: formatShare(failure.batch_share),
        })}</li>`
      }
    </ul>
    ${
      failure.advice.length > 0 &&
      html`<b>${t("explain.advice")}</b>
      <ul lang="en" data-test="advice">
        ${failure.advice.map((line) => html`<li key=${line}>${line}</li>`)}</ul>`
    }
  </div>`;
}

function Biggest({ items }) {
  if (!items.length) return null;
  return html`<section class="card"><h2>${t("explain.biggest")}</h2><div class="wide"><table
    class="biggest">
    <thead><tr><th class="right">${t("live.size")}</th><th class="right">×</th>
      <th>${t("live.part")}</th><th>${t("explain.where")}</th><th>${t("live.operator")}</th></tr>
    </thead><tbody>${items.map(
      (item, index) => html`<tr key=${index} data-test="biggest">
      <td class="right"><b>${formatBytes(item.size_bytes)}</b></td>
      <td class="right">${formatCount(item.count)}</td>
      <td><i class="swatch" style=${{ background: `var(--part-${item.part})` }}></i>
        ${t(`part.${item.part}`)}</td>
      <td class="mono" title=${item.stack.join("\n")}>${item.where || "–"}</td>
      <td class="mono">${shortOperator(item.operator) || "–"}</td></tr>`,
    )}</tbody></table></div></section>`;
}

function Facts({ facts }) {
  const rows = [
    ["trace", facts.trace_entries],
    ["allocations", facts.allocations],
    ["before", facts.before_trace],
    ["steps", facts.steps],
    ["releases", facts.cache_releases],
    ["odd", facts.unexplained_entries],
  ].map(([name, count]) => [name, formatCount(count)]);
  const free = facts.free_at_peak;
  const sizes = [
    ["free", free.free_bytes],
    ["largestFree", free.largest_bytes],
    ["stuck", free.sparse_free_bytes],
  ].map(([name, bytes]) => [name, formatBytes(bytes)]);
  return html`<section class="card"><h2>${t("explain.facts")}</h2><dl class="plain-facts">
    ${[...rows, ...sizes].map(
      ([name, value]) => html`<div key=${name}>
      <dt class="muted small">${t(`explain.fact.${name}`)}</dt><dd class="number">${value}</dd>
    </div>`,
    )}</dl></section>`;
}
