/** What the page shows, as files. */

import { firstView } from "memfit/charts/timeline-scale";
import {
  liveCsv,
  perfettoJson,
  planJson,
  svgToPng,
  timelineCsv,
  timelineSvg,
} from "memfit/export/plan";
import { getBytes } from "memfit/source/api";
import { hasDocument, readBytes } from "memfit/source/bundle";
import { formatBytes } from "memfit/ui/format";
import { useDismiss } from "memfit/ui/hooks";
import { html, useEffect, useElement, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { SNAPSHOT_PARTS } from "memfit/ui/parts";
import { cssColour } from "memfit/ui/theme";

const PICTURE = { width: 1200, height: 520 };

/**
 * @param {{plan: Plan, planId: string|null, view: View, card: Card, batch: number,
 *   selected: number|null}} properties
 */
export function ExportMenu(properties) {
  const [isOpen, setOpen] = useState(false);
  const [error, setError] = useState(/** @type {string|null} */ (null));
  const frame = useElement();
  useDismiss(frame, isOpen, () => setOpen(false));
  useEffect(() => {
    if (isOpen) frame.current.querySelector("[role=menuitem]").focus();
  }, [isOpen]);
  const items = itemsOf(properties);
  const run = async (item) => {
    setOpen(false);
    frame.current.querySelector("button").focus();
    try {
      download(await item.make(), item.name, item.type);
      setError(null);
    } catch (problem) {
      setError(problem.message);
    }
  };
  return html`<div class="export" ref=${frame}>
    <button type="button" class="button" data-test="export" aria-haspopup="menu"
      aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>${t("export.title")} ▾</button>
    ${
      isOpen &&
      html`<div class="popover menu" role="menu" onKeyDown=${moveFocus}>
      ${items.map(
        (item) => html`<button type="button" role="menuitem" key=${item.id}
        data-test=${`export-${item.id}`} onClick=${() => run(item)}>
        <b>${t(`export.${item.id}`)}</b>
        <span class="muted small">${t(`export.${item.id}.note`)}</span>
      </button>`,
      )}
    </div>`
    }
    ${error && html`<p class="error small" role="alert" lang="en">${error}</p>`}
  </div>`;
}

function itemsOf({ plan, planId, view, card, batch, selected }) {
  const { timeline } = view;
  const stem = `memfit-${plan.document.model.name.replace(/[^\w.-]+/g, "-")}-batch-${batch}`;
  const at = selected ?? timeline.peakPosition;
  const svg = () => timelineSvg(timeline, picture(plan, card, batch, timeline));
  const text = (id, name, type, make) => ({ id, name: `${stem}${name}`, type, make });
  const items = [
    text("json", ".json", "application/json", () => planJson(plan, batch, card)),
    text("csv", "-timeline.csv", "text/csv", () => timelineCsv(timeline)),
    text("live", `-alive-at-${at}.csv`, "text/csv", () => liveCsv(timeline, at)),
    text("png", ".png", "image/png", () => svgToPng(svg(), PICTURE.width, PICTURE.height)),
    text("svg", ".svg", "image/svg+xml", svg),
    text("perfetto", ".perfetto.json", "application/json", () => perfettoJson(timeline, plan)),
    text("document", ".plan.json", "application/json", () => JSON.stringify(plan.document)),
  ];
  const snapshot = snapshotOf(plan, planId, batch);
  if (snapshot) items.push(text("snapshot", ".pickle", "application/octet-stream", snapshot));
  return items;
}

/** The bytes for PyTorch's viewer: the file has those of one batch, a server of any. */
function snapshotOf(plan, planId, batch) {
  if (planId) return () => getBytes(`/api/plan/${planId}/snapshot?batch=${batch}`);
  const isThere = hasDocument("snapshot") && batch === plan.document.batch_size;
  return isThere ? () => readBytes("snapshot") : null;
}

function picture(plan, card, batch, timeline) {
  const colours = Object.fromEntries(
    SNAPSHOT_PARTS.map((part) => [part, cssColour(`--part-${part}`)]),
  );
  const capacityBytes = card.usable_bytes - card.context_bytes;
  return {
    ...PICTURE,
    ...firstView(timeline),
    title: t("export.picture", { model: plan.document.model.name, batch, card: card.name }),
    limit: { bytes: capacityBytes, label: t("time.card", { size: formatBytes(capacityBytes) }) },
    colours: {
      ...colours,
      background: cssColour("--surface"),
      text: cssColour("--text"),
      limit: cssColour("--card-line"),
    },
    names: {
      part: (name) => t(`part.${name}`),
      phase: (name) => t(`phase.${name}`),
      line: (name) => t(`time.${name}`),
    },
  };
}

/** @param {string|Blob|Uint8Array} content @param {string} name @param {string} type */
export function download(content, name, type) {
  const blob =
    content instanceof Blob ? content : new Blob([/** @type {BlobPart} */ (content)], { type });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function moveFocus(event) {
  const items = [...event.currentTarget.querySelectorAll("[role=menuitem]")];
  const at = items.indexOf(document.activeElement);
  const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  items.at(next % items.length).focus();
}
