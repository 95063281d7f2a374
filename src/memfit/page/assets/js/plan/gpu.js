/** The card: every card of the catalogue by name, less when not all is free, or a size. */

import { gibOf, isPlannedCard, parseGib, setPlanState } from "memfit/plan/store";
import { formatBytes } from "memfit/ui/format";
import { useDismiss, useDraft } from "memfit/ui/hooks";
import { html, useEffect, useElement, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

/** @param {{document: PlanDocument, choice: CardChoice, card: Card, isServed: boolean}} properties */
export function GpuPicker({ document, choice, card, isServed }) {
  const [isOpen, setOpen] = useState(false);
  const frame = useElement();
  const button = useElement();
  const close = () => setOpen(false);
  useDismiss(frame, isOpen, close);
  const choose = (key) => {
    setPlanState({ choice: { key, freeBytes: null, sizeBytes: null } });
    close();
    button.current?.focus();
  };
  return html`<div class="gpu" ref=${frame}>
    <span class="label" id="gpu-label">${t("control.gpu")}</span>
    <button type="button" class="picker" ref=${button} data-test="gpu" data-key=${choice.key}
      aria-haspopup="listbox" aria-expanded=${isOpen} aria-labelledby="gpu-label gpu-name"
      onClick=${() => setOpen(!isOpen)}>
      <span id="gpu-name" title=${card.name}>${shortName(card)}</span>
      <span class="muted small number">${formatBytes(card.usable_bytes)}</span>
    </button>
    ${isOpen && html`<${Cards} cards=${document.cards} chosen=${choice.key} choose=${choose} />`}
    <${Sizes} choice=${choice} card=${card} />
    ${
      !isPlannedCard(document, choice) &&
      !isServed &&
      html`
      <p class="small note" data-test="kernels-note">
        ${t("control.kernels", { card: document.card.name })}</p>`
    }
  </div>`;
}

function Cards({ cards, chosen, choose }) {
  const [query, setQuery] = useState("");
  const groups = byArchitecture(cards.filter((card) => isFound(card, query)));
  const found = groups.flatMap(([, group]) => group);
  const [active, setActive] = useState(() => found.findIndex(({ key }) => key === chosen));
  const search = useElement();
  const list = useElement();
  useEffect(() => search.current.focus(), []);
  useEffect(() => {
    list.current.querySelector(".active")?.scrollIntoView({ block: "nearest" });
  }, [active, query]);
  const keys = (event) => {
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
    if (event.key === "Enter") {
      event.preventDefault(); // else it presses the button, which has the focus next
      if (found[active]) choose(found[active].key);
    }
    if (!move) return;
    event.preventDefault();
    setActive(Math.max(0, Math.min(found.length - 1, active + move)));
  };
  const type = (event) => {
    setQuery(event.target.value);
    setActive(0);
  };
  return html`<div class="popover">
    <input type="search" ref=${search} role="combobox" aria-expanded="true" data-test="gpu-search"
      aria-controls="gpu-list" aria-label=${t("control.searchGpu")} value=${query}
      aria-activedescendant=${found[active] ? `gpu-${found[active].key}` : undefined}
      placeholder=${t("control.searchGpu")} onInput=${type} onKeyDown=${keys} />
    <div id="gpu-list" class="options" role="listbox" ref=${list} aria-label=${t("control.gpu")}>
      ${groups.map(
        ([architecture, group]) => html`
        <div role="group" key=${architecture} aria-label=${architecture}>
          <div class="group small muted">${architecture}</div>
          ${group.map(
            (card) => html`<div role="option" key=${card.key} id=${`gpu-${card.key}`}
            data-test=${`gpu-${card.key}`} aria-selected=${card.key === chosen}
            class=${`option ${found[active] === card ? "active" : ""}`}
            onClick=${() => choose(card.key)}>
            <span>${card.name}</span>
            <span class="muted small number">${formatBytes(card.usable_bytes)}</span>
          </div>`,
          )}
        </div>`,
      )}
    </div>
    ${!found.length && html`<p class="muted small nothing" role="status">${t("control.noGpu")}</p>`}
  </div>`;
}

function isFound(card, query) {
  const text = `${card.name} ${card.key} ${card.architecture}`.toLowerCase();
  return query
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

/** Groups in the order of the catalogue, each card where its architecture first appears. */
function byArchitecture(cards) {
  const groups = new Map();
  for (const card of cards) {
    if (!groups.has(card.architecture)) groups.set(card.architecture, []);
    groups.get(card.architecture).push(card);
  }
  return [...groups];
}

/** As people say it: "RTX 3060 12GB". */
function shortName({ name }) {
  return name.replace(/^NVIDIA (GeForce )?/, "");
}

function Sizes({ choice, card }) {
  const free = gibOf(card.usable_bytes).toFixed(2);
  return html`<div class="sizes">
    <${Size} ...${{ choice, card }} name="freeBytes" label="control.free" place=${free} />
    <${Size} ...${{ choice, card }} name="sizeBytes" label="control.size" place="—" />
  </div>`;
}

/** A number of GiB; taking one gives up the other. */
function Size({ choice, card, name, label, place }) {
  const [isWrong, setWrong] = useState(false);
  const { typing, taken } = useDraft(choice[name] ? gibOf(choice[name]) : "");
  const set = (event) => {
    const text = event.target.value.trim();
    const bytes = text ? parseGib(text) : null;
    const isMore = name === "freeBytes" && Number(bytes) > card.total_bytes;
    const isBad = Boolean(text) && (bytes === null || isMore);
    setWrong(isBad);
    if (isBad) return;
    taken();
    setPlanState({ choice: { ...choice, freeBytes: null, sizeBytes: null, [name]: bytes } });
  };
  return html`<label class="size small"><span>${t(label)}</span>
    <span class="with-unit"><input type="text" inputmode="decimal" data-test=${name} ...${typing}
      aria-invalid=${isWrong} placeholder=${place} onChange=${set} /><i>GiB</i></span></label>`;
}
