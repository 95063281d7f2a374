/** Memory as bars of parts: of a study's batch sizes, and of a run against its plan. */

import { formatBytes } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { PARTS } from "memfit/ui/parts";

/** @typedef {{name: string, parts?: Parts, totalBytes: number, markBytes?: number}} PartRow */

/**
 * Rows of stacked parts on one scale.
 * @param {object} props
 * @param {PartRow[]} props.rows `markBytes` was measured
 * @param {number|null} [props.limitBytes] of the card
 * @param {boolean} [props.withContext] whether the CUDA context is shown
 */
export function PartBars({ rows, limitBytes = null, withContext = false }) {
  const names = PARTS.filter(
    (name) => (withContext || name !== "context") && rows.some((row) => row.parts?.[name]),
  );
  /** @param {PartRow} row */
  const sizeOf = ({ parts, totalBytes }) =>
    parts ? names.reduce((sum, name) => sum + (parts[name] ?? 0), 0) : totalBytes;
  const most =
    Math.max(limitBytes ?? 0, ...rows.map((row) => Math.max(sizeOf(row), row.markBytes ?? 0))) *
    1.02;
  const percent = (bytes) => `${(100 * bytes) / most}%`;
  return html`<div class="part-bars" data-test="part-bars">
    ${rows.map(
      (row) => html`<div class="part-row" key=${row.name}>
      <span class="part-row-name number">${row.name}</span>
      <div class="part-row-bar">
        ${
          row.parts
            ? names.map(
                (name) =>
                  html`<span key=${name} title=${`${t(`part.${name}`)}: ${formatBytes(
                    row.parts?.[name] ?? 0,
                  )}`} style=${{
                    width: percent(row.parts?.[name] ?? 0),
                    background: `var(--part-${name})`,
                  }}></span>`,
              )
            : html`<span class="measured-bar" style=${{ width: percent(row.totalBytes) }}></span>`
        }
        ${
          row.markBytes &&
          html`<i class="measured-mark" title=${t("study.measured")}
          style=${{ left: percent(row.markBytes) }}></i>`
        }
        ${limitBytes && html`<i class="limit-mark" style=${{ left: percent(limitBytes) }}></i>`}
      </div>
      <span class="part-row-size number">${formatBytes(sizeOf(row))}</span>
    </div>`,
    )}
    <p class="small muted part-names">${names.map(
      (name) => html`<span key=${name}>
      <span class="swatch" style=${{ background: `var(--part-${name})` }}></span>
      ${t(`part.${name}`)}</span>`,
    )}</p>
  </div>`;
}
