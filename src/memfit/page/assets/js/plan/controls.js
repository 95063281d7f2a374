/** The recipe: a form where a server plans it, its values where the page is a file. */

import { optimizerText } from "memfit/plan/served";
import { useDraft } from "memfit/ui/hooks";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { Problem, Progress } from "memfit/ui/progress";

const WIDE = "(min-width: 901px)"; // as in style-plan.css: below, the form starts folded

/** The form of a served page. @param {{planning: Planning}} properties */
export function RecipeForm({ planning }) {
  const { about, form, change, ask, cancel, progress, error } = planning;
  if (!form) return null;
  const submit = (event) => {
    event.preventDefault();
    ask();
  };
  return html`<form class="recipe" onSubmit=${submit} data-test="recipe-form">
    <details class="recipe-fields" open=${matchMedia(WIDE).matches}>
      <summary>${t("control.recipe")}</summary>
      <${Basics} ...${{ about, form, change }} />
      <details class="more"><summary>${t("control.more")}</summary>
        <${More} ...${{ about, form, change }} /></details>
    </details>
    <div class="recipe-foot">
      <div class="toolbar">
        <button type="submit" class="button primary" data-test="plan">${t("control.plan")}</button>
        ${
          progress &&
          html`<button type="button" class="button" data-test="cancel"
          onClick=${cancel}>${t("control.cancel")}</button>
          <${Progress} progress=${progress} />`
        }
      </div>
      ${error && html`<${Problem} error=${error} />`}
    </div>
  </form>`;
}

function Basics({ about, form, change }) {
  const { choices = {} } = about;
  const names = about.models.map((model) => model.name);
  return html`
    <${Text} ...${{ form, change }} name="model" label="control.model" list=${names} />
    <div class="pair">
      <${Text} ...${{ form, change }} name="input_shape" label="control.input" place="3x224x224"
        write=${(shape) => (shape ?? []).join("x")} read=${readShape} />
      <${Amount} ...${{ form, change }} name="num_classes" label="control.classes" />
    </div>
    <div class="pair">
      <${Select} ...${{ form, change }} name="precision" label="control.precision"
        options=${choices.precision} />
      <${Text} ...${{ form, change }} name="optimizer" label="control.optimizer"
        list=${choices.optimizer} />
      <${Amount} ...${{ form, change }} name="accumulation" label="control.accumulation"
        least=${1} empty=${1} />
      <${Select} ...${{ form, change }} name="memory_format" label="control.memoryFormat"
        options=${choices.memory_format} />
    </div>
    <${Check} ...${{ form, change }} name="gradient_checkpointing"
      label="control.checkpointing" />`;
}

function More({ about, form, change }) {
  const { choices = {} } = about;
  return html`
    <div class="pair">
      <${Select} ...${{ form, change }} name="zero_grad" label="control.zeroGrad"
        options=${choices.zero_grad} />
      <${Select} ...${{ form, change }} name="attention" label="control.attention"
        options=${choices.attention} />
    </div>
    <${Amount} ...${{ form, change }} name="clip_grad_norm" label="control.clip" step="any" />
    <${Check} ...${{ form, change }} name="ema" label="control.ema" />
    <${Check} ...${{ form, change }} name="cudnn_benchmark" label="control.benchmark" />`;
}

/** @param {Record<string, any>} field */
function Text({ form, change, name, label, list, place = "", write = asText, read }) {
  const listId = list && `list-${name}`;
  const { typing, taken } = useDraft(write(form[name]));
  const set = (event) => {
    const value = read ? read(event.target.value) : event.target.value.trim();
    event.target.setCustomValidity(value === undefined ? t("control.badShape") : "");
    if (value === undefined) {
      event.target.reportValidity();
      return;
    }
    taken();
    change({ [name]: value });
  };
  return html`<label class="field"><span>${t(label)}</span>
    <input type="text" data-test=${`field-${name}`} list=${listId} ...${typing}
      placeholder=${place} spellcheck=${false} autocomplete="off" onChange=${set} />
    ${
      list &&
      html`<datalist id=${listId}>
      ${list.map((value) => html`<option key=${value} value=${value} />`)}</datalist>`
    }
  </label>`;
}

function Amount({ form, change, name, label, least = 0, empty = null, step = 1 }) {
  const { typing, taken } = useDraft(form[name] ?? "");
  const set = ({ target }) => {
    if (!target.reportValidity()) return;
    taken();
    change({ [name]: target.value === "" ? empty : Number(target.value) });
  };
  return html`<label class="field"><span>${t(label)}</span>
    <input type="number" data-test=${`field-${name}`} min=${least} step=${step}
      ...${typing} placeholder="–" onChange=${set} /></label>`;
}

function Select({ form, change, name, label, options = [form[name]] }) {
  return html`<label class="field"><span>${t(label)}</span>
    <select data-test=${`field-${name}`} value=${form[name]}
      onChange=${(event) => change({ [name]: event.target.value })}>
      ${options.map((value) => html`<option key=${value} value=${value}>${value}</option>`)}
    </select></label>`;
}

function Check({ form, change, name, label }) {
  return html`<label class="check"><input type="checkbox" data-test=${`field-${name}`}
    checked=${Boolean(form[name])}
    onChange=${(event) => change({ [name]: event.target.checked })} />
    <span>${t(label)}</span></label>`;
}

function asText(value) {
  return value ?? "";
}

/** "3x224x224" as sizes; null for nothing, undefined for what is no shape. */
function readShape(text) {
  if (!text.trim()) return null;
  const sizes = text
    .trim()
    .split(/[x×, ]+/i)
    .map(Number);
  return sizes.every((size) => Number.isInteger(size) && size > 0) ? sizes : undefined;
}

/** What the plan of a file was asked with. @param {{document: PlanDocument}} properties */
export function RecipeFacts({ document }) {
  const { recipe, input_shape: shape } = document;
  const yes = (value) => t(value ? "control.on" : "control.off");
  const rows = [
    ["control.model", document.model.name],
    ["control.input", shape.join("×")],
    ["control.classes", recipe.num_classes ?? t("control.default")],
    ["control.precision", recipe.precision],
    ["control.optimizer", optimizerText(recipe.optimizer)],
    ["control.checkpointing", yes(recipe.gradient_checkpointing)],
    ["control.accumulation", document.accumulation],
    ["control.memoryFormat", recipe.memory_format],
  ];
  const rest = [
    ["control.zeroGrad", recipe.zero_grad],
    ["control.attention", recipe.attention],
    ["control.clip", recipe.clip_grad_norm ?? "–"],
    ["control.ema", yes(recipe.ema)],
    ["control.benchmark", yes(recipe.cudnn_benchmark)],
  ];
  return html`<section class="recipe-facts small" data-test="recipe-facts"
    aria-label=${t("control.recipe")}>
    <${Values} rows=${rows} />
    <details><summary>${t("control.rest")}</summary><${Values} rows=${rest} /></details>
    <p class="muted">${t("control.readOnly")}</p>
  </section>`;
}

function Values({ rows }) {
  return html`<dl>${rows.map(
    ([label, value]) => html`<div key=${label}>
    <dt>${t(label)}</dt><dd class="mono">${String(value)}</dd></div>`,
  )}</dl>`;
}
