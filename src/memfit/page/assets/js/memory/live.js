/** What is alive at an instant: a table that sorts, searches and pins, however long it is. */

import { formatBytes, formatCount, formatShape, shortOperator } from "memfit/ui/format";
import { html, useMemo, useRef, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const ROW = 30;
const VISIBLE_ROWS = 12;
const SPARE_ROWS = 6;

/** Columns: what they show and what they sort by. */
const COLUMNS = [
  { id: "size", key: (row) => row.sizeBytes, isNumber: true },
  { id: "part", key: (row) => row.part },
  {
    id: "shape",
    key: (row) => row.shape.reduce((product, size) => product * size, 1),
    isNumber: true,
  },
  { id: "dtype", key: (row) => row.dtype },
  { id: "module", key: (row) => row.module },
  { id: "operator", key: (row) => row.operator },
  { id: "place", key: (row) => row.place },
  { id: "allocated", key: (row) => row.allocatedAt, isNumber: true },
];

/**
 * @param {{timeline: Timeline, position: number|null, pinned: number[],
 *   setPinned: (numbers: number[]) => void, goTo: (position: number) => void}} properties
 */
export function LiveTable({ timeline, position, pinned, setPinned, goTo }) {
  const [order, setOrder] = useState({ column: "size", isDown: true });
  const [query, setQuery] = useState("");
  const at = position ?? timeline.peakPosition;
  const alive = useMemo(
    () => timeline.liveAt(at).map((number) => timeline.describe(number)),
    [timeline, at],
  );
  const pins = pinned
    .filter((number) => number < timeline.tape.allocationCount)
    .map((number) => timeline.describe(number));
  const rows = useMemo(() => {
    const isPinned = new Set(pinned);
    const found = alive.filter((row) => !isPinned.has(row.number) && matches(row, query));
    return sorted(found, order);
  }, [alive, query, order, pinned]);
  const totalBytes = alive.reduce((sum, row) => sum + row.sizeBytes, 0);
  const toggle = (number) =>
    setPinned(
      pinned.includes(number) ? pinned.filter((other) => other !== number) : [...pinned, number],
    );
  const isPeak = at === timeline.peakPosition;
  const title = t(isPeak ? "live.titleAtPeak" : "live.title", { event: formatCount(at) });
  return html`<div class="live" data-test="live" data-position=${at} data-alive=${alive.length}>
    <div class="live-head">
      <h3>${title}</h3>
      <p class="muted small number" data-test="live-count">
        ${t("live.count", {
          count: formatCount(rows.length + pins.length),
          all: formatCount(alive.length),
          size: formatBytes(totalBytes),
        })}</p>
      <input type="search" data-test="live-search" value=${query} placeholder=${t("live.search")}
        aria-label=${t("live.search")} onInput=${(event) => setQuery(event.target.value)} />
    </div>
    <div class=${`grid ${timeline.tape.place ? "placed" : ""}`} role="table" aria-rowcount=${rows.length + pins.length + 1}
      aria-label=${title}>
      <${Head} order=${order} setOrder=${setOrder} />
      ${pins.map(
        (row, index) => html`<${Row} key=${`pin-${row.number}`} row=${row} index=${index}
        isPinned at=${at} toggle=${toggle} goTo=${goTo} />`,
      )}
      <${Rows} ...${{ rows, offset: pins.length, at, toggle, goTo }} />
    </div>
  </div>`;
}

function Head({ order, setOrder }) {
  const choose = (column) =>
    setOrder({
      column: column.id,
      isDown: order.column === column.id ? !order.isDown : Boolean(column.isNumber),
    });
  return html`<div role="row" class="row head">
    <span role="columnheader" class="pin-cell" aria-label=${t("live.pin")}></span>
    ${COLUMNS.map((column) => {
      const isSorted = order.column === column.id;
      const direction = order.isDown ? "descending" : "ascending";
      return html`<span role="columnheader" key=${column.id}
        class=${`${column.isNumber ? "right" : ""} col-${column.id}`}
        aria-sort=${isSorted ? direction : "none"}>
        <button type="button" data-test=${`sort-${column.id}`} onClick=${() => choose(column)}>
          ${t(`live.${column.id}`)}<i>${isSorted ? (order.isDown ? "▾" : "▴") : ""}</i></button>
      </span>`;
    })}
  </div>`;
}

/** Only the rows in sight are there; the rest is room. */
function Rows({ rows, offset, at, toggle, goTo }) {
  const [top, setTop] = useState(0);
  const frame = useRef(0);
  const scroll = (event) => {
    const { scrollTop } = event.currentTarget;
    cancelAnimationFrame(frame.current);
    frame.current = requestAnimationFrame(() => setTop(scrollTop));
  };
  const first = Math.max(0, Math.min(rows.length, Math.floor(top / ROW)) - SPARE_ROWS);
  const shown = rows.slice(first, first + VISIBLE_ROWS + 2 * SPARE_ROWS);
  if (!rows.length) return html`<p class="muted nothing">${t("live.nothing")}</p>`;
  return html`<div class="rows" role="rowgroup" tabindex="0" onScroll=${scroll}
    aria-label=${t("live.rows")} data-test="live-rows"
    style=${{ maxHeight: `${ROW * VISIBLE_ROWS}px` }}>
    <div style=${{ height: `${rows.length * ROW}px`, position: "relative" }}>
      <div style=${{ position: "absolute", top: `${first * ROW}px`, left: 0, right: 0 }}>
        ${shown.map(
          (row, index) => html`<${Row} key=${row.number} row=${row} at=${at}
          index=${offset + first + index} toggle=${toggle} goTo=${goTo} />`,
        )}
      </div>
    </div>
  </div>`;
}

function Row({ row, index, isPinned = false, at, toggle, goTo }) {
  const isAlive = row.allocatedAt <= at && (row.freedAt === null || row.freedAt > at);
  const label = t(isPinned ? "live.unpin" : "live.pin");
  return html`<div role="row" aria-rowindex=${index + 2} data-test=${isPinned ? "pinned" : "row"}
    data-number=${row.number} data-bytes=${row.sizeBytes}
    class=${`row ${isPinned ? "pinned" : ""} ${isAlive ? "" : "gone"}`}>
    <span role="cell" class="pin-cell"><button type="button" class="pin" data-test="pin"
      aria-pressed=${isPinned} aria-label=${label} title=${label}
      onClick=${() => toggle(row.number)}>${isPinned ? "★" : "☆"}</button></span>
    <span role="cell" class="right number col-size" title=${`${formatCount(row.sizeBytes)} B`}>
      ${formatBytes(row.sizeBytes)}</span>
    <span role="cell" class="col-part"><i class="swatch"
      style=${{ background: `var(--part-${row.part})` }}></i>${t(`part.${row.part}`)}</span>
    <span role="cell" class="right number col-shape">${formatShape(row.shape) || "–"}</span>
    <span role="cell" class="col-dtype">${row.dtype || "–"}</span>
    <span role="cell" class="mono col-module" title=${row.module}>${row.module || "–"}</span>
    <span role="cell" class="mono col-operator" title=${row.operator}>
      ${shortOperator(row.operator)}</span>
    <span role="cell" class="mono col-place" title=${row.place}>
      <bdi>${row.place || "–"}</bdi></span>
    <span role="cell" class="right number col-allocated">
      <button type="button" class="link" onClick=${() => goTo(row.allocatedAt)}
        title=${lifetime(row)}>${formatCount(row.allocatedAt)}</button>
      ${
        !isAlive &&
        html`<em class="small muted">
        ${t(row.allocatedAt > at ? "live.notYet" : "live.freed")}</em>`
      }</span>
  </div>`;
}

function lifetime(row) {
  const from = formatCount(row.allocatedAt);
  if (row.freedAt === null) return t("live.neverFreed", { from });
  return t("live.lifetime", { from, to: formatCount(row.freedAt) });
}

function matches(row, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return true;
  const text = [
    row.part,
    t(`part.${row.part}`),
    row.dtype,
    row.module,
    row.operator,
    row.place,
    row.shape.join("x"),
    formatShape(row.shape),
  ]
    .join(" ")
    .toLowerCase();
  return words.every((word) => text.includes(word));
}

function sorted(rows, { column, isDown }) {
  const { key, isNumber } = COLUMNS.find(({ id }) => id === column) ?? COLUMNS[0];
  const sign = isDown ? -1 : 1;
  const compare = isNumber
    ? (a, b) => key(a) - key(b)
    : (a, b) => (key(a) < key(b) ? -1 : Number(key(a) > key(b)));
  return [...rows].sort((a, b) => sign * compare(a, b) || a.allocatedAt - b.allocatedAt);
}
