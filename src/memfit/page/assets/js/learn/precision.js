/** Chapter 6: what mixed precision changes, and what it does not. */

import { Badge } from "memfit/learn/bench";
import { Chapter, Para } from "memfit/learn/text";
import { PRECISIONS, partsByPlan, sumOf } from "memfit/learn/world";
import { formatCount } from "memfit/ui/format";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { TAUGHT } from "memfit/ui/parts";

/** Chapter 6. */
export function PrecisionChapter({ number, world, at }) {
  const [full, mixed] = PRECISIONS.map((precision) =>
    partsByPlan(at({ ...world, precision }).timeline),
  );
  const values = {
    full: formatCount(full.activations),
    mixed: formatCount(mixed.activations),
    batch: formatCount(world.batch),
    times: (mixed.activations / full.activations).toFixed(1),
  };
  return html`<${Chapter} number=${number} id="precision">
    <${Para} of="learn.precision.what" />
    <div class="wide"><table class="learn-layers" data-test="precisions">
      <thead><tr><th></th>${PRECISIONS.map(
        (precision) => html`<th key=${precision}
        class="to-right">
        ${t(`learn.choice.${precision}`)}</th>`,
      )}
        <th class="to-right">${t("learn.precision.ratio")}</th></tr></thead>
      <tbody>
        ${TAUGHT.map(
          ({ name, badge }) => html`<${Row} key=${name} badge=${badge} part=${name}
          title=${t(`part.${name}`)} full=${full[name]} mixed=${mixed[name]} />`,
        )}
        <${Row} title=${t("word.total")} isTotal=${true} full=${sumOf(full)}
          mixed=${sumOf(mixed)} />
      </tbody></table></div>
    <${Para} of="learn.precision.stay" />
    <${Para} of="learn.precision.more" values=${values} />
    <${Para} of="learn.precision.when" />
  <//>`;
}

function Row({ badge, part, title, full, mixed, isTotal = false }) {
  const ratio = full === 0 ? "–" : `× ${(mixed / full).toFixed(2)}`;
  const isSame = full === mixed;
  return html`<tr class=${isTotal ? "sum-row" : ""}>
    <th scope="row">${badge && html`<${Badge} part=${part} text=${badge} />`} ${title}</th>
    <td class="to-right">${formatCount(full)} B</td>
    <td class="to-right">${formatCount(mixed)} B</td>
    <td class=${`to-right ${isSame ? "muted" : ""}`}>
      ${isSame ? t("learn.precision.same") : ratio}</td>
  </tr>`;
}
