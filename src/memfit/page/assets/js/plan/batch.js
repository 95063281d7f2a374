/** The batch: a slider that answers at once, a number beside it, and the batches worth trying. */

import { setBatch } from "memfit/plan/store";
import { formatCount } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const STEPS = 1000;

/**
 * The last batch of the slider: somewhat beyond the largest that fits.
 * @param {{largest: number}|null} limits
 * @param {number} batch that is shown
 */
export function lastBatch(limits, batch) {
  const largest = limits?.largest ?? 0;
  return Math.max(8, Math.ceil(1.3 * largest), largest ? 0 : 2 * batch);
}

/** @param {{batch: number, limits: Limits|null, last: number, traced: number[]|null}} properties */
export function BatchSlider({ batch, limits, last, traced = null }) {
  const place = (value) => (STEPS * Math.log(Math.min(value, last))) / Math.log(last);
  const left = (value) => {
    // where the middle of the thumb would be
    const share = place(value) / STEPS;
    return `calc(${share} * (100% - var(--thumb)) + var(--thumb) / 2)`;
  };
  const keys = (event) => {
    const next = batchAfter(event.key, batch, last);
    if (next === null) return;
    event.preventDefault();
    setBatch(next);
  };
  const slide = (event) => setBatch(last ** (Number(event.target.value) / STEPS));
  const type = (event) => event.target.value && setBatch(Number(event.target.value));
  return html`<div class="batch" data-test="batch" data-last=${last}>
    <div class="batch-head">
      <label for="batch-slider">${t("control.batch")}</label>
      <input type="number" class="number" min="1" step="1" value=${batch} data-test="batch-number"
        aria-label=${t("word.batch")} onInput=${type} />
    </div>
    <div class="track">
      <input type="range" id="batch-slider" data-test="batch-slider" min="0" max=${STEPS} step="any"
        value=${place(batch)} aria-valuetext=${formatCount(batch)} onInput=${slide}
        onKeyDown=${keys} />
      ${
        limits &&
        limits.recommended > 0 &&
        html`<i class="tick recommended"
        style=${{ left: left(limits.recommended) }} title=${t("verdict.recommended")}></i>`
      }
      ${
        limits &&
        limits.largest > 0 &&
        html`<i class="tick largest"
        style=${{ left: left(limits.largest) }} title=${t("verdict.largest")}></i>`
      }
    </div>
    <div class="track-ends small muted number"><span>1</span><span>${formatCount(last)}</span></div>
    ${
      traced &&
      html`<p class="small muted">${t("control.traced", { batches: traced.join(", ") })}
    </p>`
    }
  </div>`;
}

/** Where a key leads; null when it leads nowhere. */
function batchAfter(key, batch, last) {
  const stride = batch >= 16 ? 8 : 1;
  const next = {
    ArrowRight: batch + 1,
    ArrowUp: batch + 1,
    ArrowLeft: batch - 1,
    ArrowDown: batch - 1,
    PageUp: batch + stride * 4,
    PageDown: batch - stride * 4,
    Home: 1,
    End: last,
  }[key];
  return next === undefined ? null : Math.max(1, Math.min(last, next));
}
