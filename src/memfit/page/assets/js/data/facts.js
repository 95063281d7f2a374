/** Counts, classes, and what one should look at. */

import { English, hazardWords, layoutWords, visible } from "memfit/data/words";
import { FactGrid } from "memfit/ui/chooser";
import { formatBytes, formatCount } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const MOST_BARS = 60;

/** The name of the source and its figures. */
export function Start({ data }) {
  const missing = data.images - data.readable;
  const facts = [[t("data.images"), formatCount(data.images)]];
  if (data.classes.count) facts.push([t("data.classes"), formatCount(data.classes.count)]);
  if (data.shape) facts.push([t("data.shape"), shapeText(data)]);
  if (data.bytes_on_disk) facts.push([t("data.disk"), formatBytes(data.bytes_on_disk)]);
  return html`<section class="card">
    <h2>${visible(data.name)}</h2>
    <${FactGrid} facts=${facts} />
    <p class=${missing ? "is-bad" : "is-good"}>${
      missing
        ? t("data.some_read", { missing: formatCount(missing), images: formatCount(data.images) })
        : `✓ ${t("data.all_read")}`
    }</p>
  </section>`;
}

function shapeText({ shape, channels }) {
  const kind = t(`data.colours.${channels}`);
  const [, height, width] = shape;
  if (height === null) return `${kind}, ${t("data.vary")}`;
  return `${channels} × ${height} × ${width} (${kind})`;
}

/** What the images are as files. */
export function Facts({ data }) {
  const { sizes, modes, formats } = data.facts;
  const rows = [
    ["data.kind", layoutWords(data.layout)],
    ["data.splits", countsText(data.splits.map((split) => [split.name, split.images]))],
    ["data.modes", countsText(Object.entries(modes))],
    ["data.formats", countsText(Object.entries(formats))],
    ["data.sizes", sizes && sizesText(sizes)],
  ];
  return html`<section class="card">
    <h2>${t("data.facts")}</h2>
    <div class="wide"><table><tbody>
      ${rows
        .filter(([, value]) => value)
        .map(
          ([key, value]) => html`<tr key=${key}>
        <th scope="row">${t(key)}</th><td>${value}</td></tr>`,
        )}
    </tbody></table></div>
  </section>`;
}

function countsText(counts) {
  return counts.map(([name, count]) => `${name}: ${formatCount(count)}`).join(" · ");
}

function sizesText({ smallest, median, largest, vary }) {
  const text = (size) => size.join(" × ");
  if (!vary) return t("data.sizes.same", { median: text(median) });
  return t("data.sizes.text", {
    smallest: text(smallest),
    median: text(median),
    largest: text(largest),
  });
}

/** Bars of the images of each class, split by split. */
export function Classes({ data }) {
  const { names, counts, count, unlabelled } = data.classes;
  if (!names.length || !counts.length) return null;
  const shown = names.slice(0, MOST_BARS);
  const totals = shown.map((_, k) => counts.reduce((sum, split) => sum + split.counts[k], 0));
  const most = Math.max(1, ...totals);
  return html`<section class="card" data-test="classes">
    <h2>${t("data.balance")}</h2>
    <p class="muted small">${balanceText(counts[0].counts)}</p>
    <table class="class-bars number"><tbody>
      ${shown.map(
        (name, k) => html`<tr key=${k}>
        <th scope="row">${visible(name)}</th>
        <td class="bar-cell">${counts.map(
          (split, place) => html`<span key=${split.split}
          class=${`class-bar bar-${place % 3}`}
          title=${`${split.split}: ${formatCount(split.counts[k])}`}
          style=${{ width: `${(100 * split.counts[k]) / most}%` }}></span>`,
        )}</td>
        <td class="to-right">${counts.map((split) => formatCount(split.counts[k])).join(" + ")}</td>
      </tr>`,
      )}
    </tbody></table>
    <p class="muted small">${counts.map(
      (split, place) => html`<span key=${split.split}
      class="bar-name"><span class=${`swatch bar-${place % 3}`}></span>${split.split}</span>`,
    )}
      ${count > shown.length && t("data.balance.cut", { shown: shown.length, count })}
      ${unlabelled > 0 && t("data.unlabelled", { count: formatCount(unlabelled) })}</p>
  </section>`;
}

function balanceText(counts) {
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  if (least === 0) return t("data.balance.empty");
  if (least === most) return t("data.balance.even");
  return t("data.balance.uneven", { ratio: (most / least).toFixed(2) });
}

/** What would spoil training unnoticed; nothing where nothing is wrong. */
export function Warnings({ data }) {
  const { hazards, problems, problem_count: problemCount, unreadable } = data.warnings;
  const twice = twiceTexts(data.warnings);
  if (![twice, hazards, problems, unreadable].some((list) => list.length)) return null;
  return html`<section class="card is-warned" data-test="warnings">
    <h2>${t("data.warnings")}</h2>
    <ul>${twice.map((line) => html`<li key=${line}>${line}</li>`)}
      ${problems.map(
        ({ name, reason }) => html`<li key=${name}><code>${visible(name)}</code>${" "}
        <${English} text=${reason} /></li>`,
      )}
      <${More} count=${problemCount - problems.length} />
      ${hazards.map((hazard) => html`<${Hazard} key=${hazard.kind} hazard=${hazard} />`)}</ul>
    <${Unreadable} found=${data.warnings} />
  </section>`;
}

function twiceTexts({ copies, leaks, mislabelled_groups: groups }) {
  return [
    ...Object.entries(copies)
      .filter(([, count]) => count)
      .map(([split, count]) => t("data.copies", { split, count: formatCount(count) })),
    ...leaks.map((leak) => t("data.leak", { ...leak, count: formatCount(leak.count) })),
    ...(groups ? [t("data.mislabelled", { count: formatCount(groups) })] : []),
  ].map(visible);
}

function Hazard({ hazard }) {
  const [kind, usually, here] = hazardWords(hazard);
  return html`<li>
    <strong>${kind}: ${formatCount(hazard.count)}</strong>
    ${hazard.example && html` <code>${visible(hazard.example)}</code>`}
    <div class="small"><span class="muted">${t("data.usually")}:</span> ${usually}</div>
    <div class="small"><span class="muted">${t("data.here")}:</span> ${here}</div>
  </li>`;
}

function More({ count }) {
  return count > 0 && html`<li class="muted">${t("data.more", { count: formatCount(count) })}</li>`;
}

function Unreadable({ found }) {
  if (!found.unreadable.length) return null;
  return html`<details><summary>${t("data.unreadable")}: ${formatCount(found.unreadable_count)}
    </summary><ul class="small">
      ${found.unreadable.map(
        ({ name, reason }) => html`<li key=${name}>
        <code>${visible(name)}</code> <${English} text=${reason} /></li>`,
      )}
      <${More} count=${found.unreadable_count - found.unreadable.length} />
    </ul></details>`;
}
