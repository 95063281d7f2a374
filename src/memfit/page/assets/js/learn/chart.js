/** A small stacked chart of the parts, as SVG that follows the theme by itself. */

import { formatBytes } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const WIDTH = 640;
const HEIGHT = 220;
const TOP = 18; // room for the marks
const BOTTOM = 20; // room for the labels of the axis

/**
 * Areas on top of one another.
 * @param {object} props
 * @param {{name: string, values: ArrayLike<number>}[]} props.areas from the bottom up
 * @param {number} props.count of values in each
 * @param {{from: number, to: number, phase: string}[]} [props.bands] behind the areas
 * @param {{at: number, text: string}[]} [props.marks] words at the upper edge
 * @param {{at: number, text: string}[]} [props.ticks] words at the lower edge
 * @param {number|null} [props.cursor] a line at one value
 * @param {boolean} [props.isStepped] values hold until the next
 * @param {string} props.label for who cannot see it
 */
export function StackChart({
  areas,
  count,
  bands = [],
  marks = [],
  ticks = [],
  cursor = null,
  isStepped = false,
  label,
}) {
  const last = isStepped ? count : count - 1;
  const x = (place) => (place / last) * WIDTH;
  const most = mostOf(areas, count);
  const y = (value) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - BOTTOM - TOP - 6);
  const lower = new Float64Array(count);
  return html`<div class="stack-chart">
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${label}
      preserveAspectRatio="none">
      ${bands.map(
        (band) => html`<rect key=${band.from} x=${x(band.from)} y="0"
        width=${x(band.to) - x(band.from)} height=${HEIGHT - BOTTOM}
        style=${{ fill: `var(--phase-${band.phase})` }} />`,
      )}
      ${areas.map(({ name, values }) => {
        const under = lower.slice();
        for (let k = 0; k < count; k += 1) lower[k] += values[k];
        return html`<path key=${name} d=${pathOf(lower, under, { x, y, isStepped })}
          style=${{ fill: `var(--part-${name})` }} />`;
      })}
      ${
        cursor !== null &&
        html`<line class="chart-cursor"
        x1=${x(cursor + 0.5)} x2=${x(cursor + 0.5)}
        y1="0" y2=${HEIGHT - BOTTOM} vector-effect="non-scaling-stroke" />`
      }
    </svg>
    <span class="chart-most muted small number">${formatBytes(most)}</span>
    ${bands
      .filter((band) => band.to - band.from > count * 0.05)
      .map(
        (band) => html`
      <span key=${band.from} data-test="band"
        class=${`chart-band muted small ${band.to - band.from < count * 0.1 ? "is-narrow" : ""}`}
        style=${{ left: `${(100 * (band.from + band.to)) / 2 / last}%` }}>
        ${t(`phase.${band.phase}`)}</span>`,
      )}
    ${ticks.map(
      (tick) => html`<span key=${tick.at} class="chart-band muted small number"
      style=${{ left: `${(100 * tick.at) / last}%` }}>${tick.text}</span>`,
    )}
    ${marks.map(
      (mark) => html`<span key=${mark.at} class="chart-mark muted small"
      style=${{ left: `${(100 * mark.at) / last}%` }}>${mark.text}</span>`,
    )}
  </div>`;
}

function mostOf(areas, count) {
  let most = 1;
  for (let k = 0; k < count; k += 1) {
    most = Math.max(
      most,
      areas.reduce((sum, { values }) => sum + values[k], 0),
    );
  }
  return most;
}

/** An area between two rows of values. */
function pathOf(upper, under, { x, y, isStepped }) {
  const there = [];
  const back = [];
  for (let k = 0; k < upper.length; k += 1) {
    const ends = isStepped ? [k, k + 1] : [k];
    for (const place of ends) {
      there.push(`${x(place).toFixed(1)},${y(upper[k]).toFixed(1)}`);
      back.push(`${x(place).toFixed(1)},${y(under[k]).toFixed(1)}`);
    }
  }
  return `M${there.join("L")}L${back.reverse().join("L")}Z`;
}
