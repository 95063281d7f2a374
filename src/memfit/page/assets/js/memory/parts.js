/** The peak against the card: a bar of the parts, and what each part takes: then, and at its most. */

import { formatBytes, formatCount, percent, shares } from "memfit/ui/format";
import { html, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { PARTS } from "memfit/ui/parts";

/**
 * @param {{parts: Parts, most?: Parts|null, totalBytes: number, limitBytes: number|null,
 *   safety?: number, test?: string, names?: string[], isTraining?: boolean}} properties `most` of each part at an
 *   instant of its own; without it there is only the bar
 */
export function PartsBar({
  parts,
  most = null,
  totalBytes,
  limitBytes,
  safety = 0,
  test = "parts",
  names = PARTS,
  isTraining = true,
}) {
  const [active, setActive] = useState(/** @type {string|null} */ (null));
  const widest = Math.max(totalBytes, limitBytes ?? 0);
  const shown = names.filter((part) => parts[part] !== 0);
  const share = (bytes) => `${(100 * bytes) / widest}%`;
  const safeBytes = limitBytes && safety > 0 && safety < 1 ? limitBytes * safety : null;
  return html`<div class="parts" data-test=${test}>
    <div class="part-frame">
      <div class="part-bar" onPointerLeave=${() => setActive(null)}>
        ${shown.map(
          (part) => html`
          <div key=${part} class=${`slice ${active && active !== part ? "faded" : ""}`}
            style=${{ width: share(parts[part]), background: `var(--part-${part})` }}
            onPointerEnter=${() => setActive(part)}></div>`,
        )}
      </div>
      ${safeBytes && html`<i class="limit safe" style=${{ left: share(safeBytes) }}></i>`}
      ${limitBytes && html`<i class="limit" style=${{ left: share(limitBytes) }}></i>`}
    </div>
    <${BarScale} ...${{ totalBytes, limitBytes, safety, safeBytes, share }} />
    ${most && html`<${Legend} ...${{ names, parts, most, totalBytes, active, setActive, isTraining }} />`}
  </div>`;
}

function BarScale({ totalBytes, limitBytes, safety, safeBytes, share }) {
  const end = limitBytes ?? totalBytes;
  return html`<div class="part-scale small muted number">
    <span>0</span>
    ${
      safeBytes &&
      html`<span class="pointer" style=${{ left: share(safeBytes) }}>
        ${Math.round(100 * safety)} %</span>`
    }
    <span class=${`end ${limitBytes ? "of-card" : ""}`} style=${{ left: share(end) }}>
      ${limitBytes ? t("verdict.cardHas", { size: formatBytes(limitBytes) }) : formatBytes(end)}
    </span>
  </div>`;
}

/** Two tables side by side, or one below the other where there is no room. */
function Legend({ names, parts, most, totalBytes, active, setActive, isTraining }) {
  const tenths = shares(names.map((part) => parts[part]));
  const rows = names.map((part, index) => ({ part, share: percent(tenths[index]) }));
  const half = Math.ceil((rows.length + 1) / 2);
  const over = (name) => ({
    class: active === name ? "active" : "",
    onPointerEnter: () => setActive(name),
    onPointerLeave: () => setActive(null),
    onFocus: () => setActive(name),
    onBlur: () => setActive(null),
  });
  const size = (name, bytes) => (active === name ? exactly(bytes) : formatBytes(bytes));
  const table = (shown, sum) => html`<table class="number"><thead><tr class="small muted">
      <th></th><th class="right">${t("parts.atPeak")}</th><th></th>
      <th class="right">${t("parts.atMost")}</th></tr></thead>
    <tbody>${shown.map(
      ({ part, share }) => html`<tr key=${part} tabindex="0" data-test=${`part-${part}`}
        data-bytes=${parts[part]} data-most=${most[part]} ...${over(part)}>
        <th scope="row"><i class="swatch" style=${{ background: `var(--part-${part})` }}></i>
          ${t(`part.${part}`)}</th>
        <td class="right" title=${exactly(parts[part])}><b>${size(part, parts[part])}</b></td>
        <td class="right muted small">${share}</td>
        <td class="right" title=${exactly(most[part])}>${size(part, most[part])}</td></tr>`,
    )}${sum}</tbody></table>`;
  return html`<div class="part-legend">
      ${table(rows.slice(0, half), null)}
      ${table(
        rows.slice(half),
        html`<tr class="sum" tabindex="0" data-test="total" data-bytes=${totalBytes}
          ...${over("total")}><th scope="row">${t("verdict.sum")}</th>
          <td class="right" title=${exactly(totalBytes)}><b>${size("total", totalBytes)}</b></td>
          <td></td><td></td></tr>`,
      )}
    </div>
    <p class="small muted" data-test="parts-why">${t(
      isTraining ? "parts.why" : "parts.why.passes",
    )}</p>`;
}

function exactly(bytes) {
  return `${formatCount(bytes)} B`;
}
