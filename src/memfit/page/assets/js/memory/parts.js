/** The peak against the card: a bar of the parts, and what each part takes. */

import { formatBytes, formatCount, percent, shares } from "memfit/ui/format";
import { html, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { PARTS } from "memfit/ui/parts";

/**
 * @param {{parts: Record<string, number>, totalBytes: number, limitBytes: number|null,
 *   safety?: number, test?: string, hasLegend?: boolean,
 *   names?: string[]}} properties
 */
export function PartsBar({
  parts,
  totalBytes,
  limitBytes,
  safety = 0,
  test = "parts",
  hasLegend = true,
  names = PARTS,
}) {
  const [active, setActive] = useState(/** @type {string|null} */ (null));
  const widest = Math.max(totalBytes, limitBytes ?? 0);
  const shown = names.filter((part) => parts[part] !== 0);
  const share = (bytes) => `${(100 * bytes) / widest}%`;
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
      ${
        limitBytes &&
        safety > 0 &&
        safety < 1 &&
        html`
        <i class="limit safe" style=${{ left: share(limitBytes * safety) }}></i>`
      }
      ${limitBytes && html`<i class="limit" style=${{ left: share(limitBytes) }}></i>`}
    </div>
    <${BarScale} ...${{ totalBytes, limitBytes, safety, widest }} />
    ${hasLegend && html`<${Legend} ...${{ names, parts, totalBytes, active, setActive }} />`}
  </div>`;
}

function BarScale({ totalBytes, limitBytes, safety, widest }) {
  const end = limitBytes ?? totalBytes;
  const at = `${(100 * end) / widest}%`;
  return html`<div class="part-scale small muted number">
    <span>0</span>
    ${
      limitBytes &&
      safety > 0 &&
      safety < 1 &&
      html`
      <span class="pointer" style=${{ left: `${(100 * limitBytes * safety) / widest}%` }}>
        ${Math.round(100 * safety)} %</span>`
    }
    <span class=${`end ${limitBytes ? "of-card" : ""}`} style=${{ left: at }}>
      ${limitBytes ? t("verdict.cardHas", { size: formatBytes(limitBytes) }) : formatBytes(end)}
    </span>
  </div>`;
}

function Legend({ names, parts, totalBytes, active, setActive }) {
  const tenths = shares(names.map((part) => parts[part]));
  return html`<dl class="part-legend">
    ${names.map(
      (part, index) => html`
      <div key=${part} tabindex="0" data-test=${`part-${part}`} data-bytes=${parts[part]}
        class=${`part-item ${active === part ? "active" : ""} ${parts[part] ? "" : "none"}`}
        title=${exactly(parts[part])} onPointerEnter=${() => setActive(part)}
        onPointerLeave=${() => setActive(null)} onFocus=${() => setActive(part)}
        onBlur=${() => setActive(null)}>
        <dt><i class="swatch" style=${{ background: `var(--part-${part})` }}></i>
          ${t(`part.${part}`)}</dt>
        <dd class="number">
          ${
            active === part
              ? html`<b>${formatCount(parts[part])}</b> B`
              : html`<b>${formatBytes(parts[part])}</b>
              <span class="muted small">${percent(tenths[index])}</span>`
          }
        </dd>
      </div>`,
    )}
    <div class="part-item sum" tabindex="0" data-test="total" data-bytes=${totalBytes}
      title=${exactly(totalBytes)} onFocus=${() => setActive("total")}
      onBlur=${() => setActive(null)} onPointerEnter=${() => setActive("total")}
      onPointerLeave=${() => setActive(null)}>
      <dt>${t("verdict.sum")}</dt>
      <dd class="number">${
        active === "total"
          ? html`<b>${formatCount(totalBytes)}</b> B`
          : html`<b>${formatBytes(totalBytes)}</b>`
      }</dd>
    </div>
  </dl>`;
}

function exactly(bytes) {
  return `${formatCount(bytes)} B`;
}
