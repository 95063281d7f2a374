/** The recipe: a form where a server plans it, its values where the page is a file. */

import { optimizerText } from "memfit/plan/served";
import { form as ROWS } from "memfit/source/bundle";
import { useDraft } from "memfit/ui/hooks";
import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { Problem, Progress } from "memfit/ui/progress";

const WIDE = "(min-width: 901px)"; // as in style-plan.css: below, the form starts folded
const FIRST = ROWS.filter((row) => !row.more);
const MORE = ROWS.filter((row) => row.more);

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
      <${Controls} ...${{ rows: FIRST, about, form, change }} />
      <details class="more"><summary>${t("control.more")}</summary>
        <${Controls} ...${{ rows: MORE, about, form, change }} /></details>
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

/** A control for each field: the model as wide as the form, others in pairs, switches below. */
function Controls({ rows, about, form, change }) {
  const lists = {
    model: about.models.map((model) => model.name),
    optimizer: about.choices.optimizer,
  };
  const draw = ({ name, schema }) =>
    html`<${controlOf(schema)} key=${name}
      ...${{ form, change, name, schema, list: lists[name] }} />`;
  const isWide = ({ name }) => name === "model";
  return html`
    ${rows.filter(isWide).map(draw)}
    <div class="pair">${rows.filter((row) => !isWide(row) && !isSwitch(row.schema)).map(draw)}</div>
    ${rows.filter(({ schema }) => isSwitch(schema)).map(draw)}`;
}

function controlOf(schema) {
  if (schema.enum) return isSwitch(schema) ? Check : Select;
  const [type] = [schema.type].flat();
  return { array: Shape, integer: Amount, number: Amount }[type] ?? Text;
}

function isSwitch(schema) {
  return Boolean(schema.enum?.includes(false));
}

/** @param {Record<string, any>} field */
function Text({ form, change, name, schema, list, place = "", write = asText, read }) {
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
  return html`<label class="field"><span>${t(`field.${name}`)}</span>
    <input type="text" data-test=${`field-${name}`} list=${listId} ...${typing}
      maxlength=${schema.maxLength} placeholder=${place} spellcheck=${false} autocomplete="off"
      onChange=${set} />
    ${
      list &&
      html`<datalist id=${listId}>
      ${list.map((value) => html`<option key=${value} value=${value} />`)}</datalist>`
    }
  </label>`;
}

function Shape(field) {
  const write = (shape) => (shape ?? []).join("x");
  return html`<${Text} ...${field} place="3x224x224" write=${write} read=${readShape} />`;
}

function Amount({ form, change, name, schema }) {
  const { typing, taken } = useDraft(form[name] ?? "");
  const set = ({ target }) => {
    if (!target.reportValidity()) return;
    taken();
    change({ [name]: target.value === "" ? schema.default : Number(target.value) });
  };
  const isWhole = schema.type.includes("integer");
  return html`<label class="field"><span>${t(`field.${name}`)}</span>
    <input type="number" data-test=${`field-${name}`} step=${isWhole ? 1 : "any"}
      min=${schema.minimum ?? schema.exclusiveMinimum} max=${schema.maximum}
      ...${typing} placeholder="–" onChange=${set} /></label>`;
}

function Select({ form, change, name, schema }) {
  return html`<label class="field"><span>${t(`field.${name}`)}</span>
    <select data-test=${`field-${name}`} value=${form[name]}
      onChange=${(event) => change({ [name]: event.target.value })}>
      ${schema.enum.map((value) => html`<option key=${value} value=${value}>${value}</option>`)}
    </select></label>`;
}

function Check({ form, change, name }) {
  return html`<label class="check"><input type="checkbox" data-test=${`field-${name}`}
    checked=${Boolean(form[name])}
    onChange=${(event) => change({ [name]: event.target.checked })} />
    <span>${t(`field.${name}`)}</span></label>`;
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

/** What the plan of a file was asked with; nothing of a script's. @param {{document: PlanDocument}} properties */
export function RecipeFacts({ document }) {
  const { recipe, input_shape: shape } = document;
  if (!recipe) return null;
  const shown = {
    model: document.model.name,
    input_shape: shape.join("×"),
    num_classes: recipe.num_classes ?? t("control.default"),
    optimizer: optimizerText(recipe.optimizer),
    accumulation: document.accumulation,
  };
  const told = ({ name, schema }) =>
    shown[name] ??
    (isSwitch(schema) ? t(recipe[name] ? "control.on" : "control.off") : recipe[name]);
  const facts = (rows) => rows.map((row) => [`field.${row.name}`, told(row) ?? "–"]);
  return html`<section class="recipe-facts small" data-test="recipe-facts"
    aria-label=${t("control.recipe")}>
    <${Values} rows=${facts(FIRST)} />
    <details><summary>${t("control.rest")}</summary><${Values} rows=${facts(MORE)} /></details>
    <p class="muted">${t("control.readOnly")}</p>
  </section>`;
}

function Values({ rows }) {
  return html`<dl>${rows.map(
    ([label, value]) => html`<div key=${label}>
    <dt>${t(label)}</dt><dd class="mono">${String(value)}</dd></div>`,
  )}</dl>`;
}
