/** Ways to fit more: what each buys, what it costs, how to ask for it. */

import { postJson } from "memfit/source/api";
import { formatBytes, formatCount } from "memfit/ui/format";
import { html, useState } from "memfit/ui/html";
import { hasText, t } from "memfit/ui/i18n";

/** What a flag stands for: the texts are those of planner/options.py, by name. */
/** @type {[RegExp, string][]} */
const WAYS = [
  [/^--precision/, "precision"],
  [/^--gradient-checkpointing/, "checkpointing"],
  [/^--optimizer \w+8bit/, "eightBit"],
  [/^--optimizer lion/, "lion"],
  [/fused=true/, "fused"],
  [/^--optimizer sgd/, "sgd"],
  [/^--memory-format/, "nhwc"],
  [/^--zero-grad/, "zeroGrad"],
  [/^--no-ema/, "ema"],
  [/--accumulation/, "accumulate"],
  [/^PYTORCH_ALLOC_CONF/, "segments"],
  [/^batch \d+/, "halve"],
];

/** @typedef {{document: PlanDocument, options?: Way[], isBusy?: boolean, error?: Told}} Asked */

/** @param {{document: PlanDocument, planId: string|null}} properties */
export function Ways({ document, planId }) {
  const [asked, setAsked] = useState(/** @type {Asked} */ ({ document }));
  const state = asked.document === document ? asked : { document };
  const options = document.options ?? state.options;
  const ask = async () => {
    setAsked({ document, isBusy: true });
    try {
      const { options: found } = await postJson(`/api/plan/${planId}/options`, {});
      setAsked({ document, options: found });
    } catch (error) {
      setAsked({ document, error });
    }
  };
  if (!options && !planId) return null;
  if (document.script && !options?.length) return null;
  return html`<section class="card" aria-labelledby="ways-title" data-test="ways">
    <h2 id="ways-title">${t("ways.title")}</h2>
    ${
      options
        ? html`<${Table} options=${options} batch=${document.batch_size} />`
        : html`
      <p class="muted small">${t("ways.ask")}</p>
      <button type="button" class="button" data-test="ask-ways" disabled=${state.isBusy}
        onClick=${ask}>${t(state.isBusy ? "ways.busy" : "ways.find")}</button>
      ${
        state.error &&
        html`<p class="error" role="alert">${state.error.message}
        ${" "}${state.error.hint}</p>`
      }`
    }
  </section>`;
}

function Table({ options, batch }) {
  if (!options.length) return html`<p class="muted">${t("ways.none")}</p>`;
  const most = Math.max(...options.map((option) => option.saved_bytes), 1);
  const hasCard = options.some((option) => option.max_batch_size !== null);
  return html`<div class="ways">
    ${options.map(
      (option) => html`<div class="way" key=${option.flag} data-test="way">
      <div><b>${nameOf(option)}</b><br /><code class="small">${option.flag}</code>
        <span class="muted small"> ${noteOf(option)}</span></div>
      <div class="saved number"><i style=${{ width: `${(100 * option.saved_bytes) / most}%` }}></i>
        <span>−${formatBytes(option.saved_bytes)}</span></div>
      ${
        hasCard &&
        html`<div class="number right small">
        <span class="muted">${t("ways.largest")}</span><br />
        <b>${option.max_batch_size === null ? "–" : formatCount(option.max_batch_size)}</b></div>`
      }
    </div>`,
    )}
    <p class="muted small">${t("ways.at", { batch: formatCount(batch) })}</p>
  </div>`;
}

function wordsOf(option, kind, fallback) {
  const key = `way.${WAYS.find(([pattern]) => pattern.test(option.flag))?.[1]}.${kind}`;
  const [micro, steps] = option.flag.match(/\d+/g) ?? [];
  return hasText(key) ? t(key, { flag: option.flag.split(" ")[1], micro, steps }) : fallback;
}

function nameOf(option) {
  return wordsOf(option, "name", option.name);
}

function noteOf(option) {
  return option.note ? wordsOf(option, "note", option.note) : "";
}
