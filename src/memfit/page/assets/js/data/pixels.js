/** An image as the numbers that a model gets: its channels, and a window of pixels to read. */

import { html, useEffect, useElement, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const WINDOW = 8; // pixels on a side that are written as numbers
const NAMES = { 1: ["grey"], 3: ["red", "green", "blue"] };

/**
 * An image of numbers from 0 to 255.
 * @typedef {{height: number, width: number, channels: ArrayLike<number>[]}} View
 */

/**
 * The image, its channels and a window that mouse and arrow keys move.
 * @param {{view: View, label: string}} props
 */
export function PixelView({ view, label }) {
  const isColour = view.channels.length === 3;
  const [wanted, setChannel] = useState(/** @type {number|null} */ (null));
  const [unit, setUnit] = useState("byte");
  const [corner, setCorner] = useState(() => middleOf(view));
  useEffect(() => {
    setCorner(middleOf(view));
    setChannel(null);
  }, [view]);
  const channel = isColour ? wanted : 0;
  const size = windowOf(view);
  const place = {
    row: within(corner.row, view.height - size.rows),
    column: within(corner.column, view.width - size.columns),
  };
  return html`<div class="pixels" data-test="pixels">
    <div class="pixels-pictures">
      <${Movable} view=${view} channel=${channel} place=${place} size=${size} label=${label}
        move=${setCorner} />
      ${isColour && html`<${Planes} view=${view} channel=${channel} choose=${setChannel} />`}
      <p class="muted small">${t("pixels.move")}</p>
    </div>
    <div class="pixels-numbers">
      <div class="segmented" role="group" aria-label=${t("pixels.unit")}>
        ${["byte", "share"].map(
          (name) => html`<button type="button" key=${name}
          aria-pressed=${unit === name} data-test=${`unit-${name}`}
          onClick=${() => setUnit(name)}>${t(`pixels.unit.${name}`)}</button>`,
        )}
      </div>
      <${Numbers} view=${view} channel=${channel ?? 0} place=${place} size=${size} unit=${unit} />
      <p class="muted small number">${t("pixels.place", {
        channel: t(`pixels.${NAMES[view.channels.length][channel ?? 0]}`),
        rows: `${place.row}–${place.row + size.rows - 1}`,
        columns: `${place.column}–${place.column + size.columns - 1}`,
      })}</p>
    </div>
  </div>`;
}

/** One image on a canvas, each pixel a square. */
export function Picture({ view, channel = null }) {
  const canvas = useElement();
  useEffect(() => paint(canvas.current, view, channel), [view, channel]);
  return html`<canvas ref=${canvas} class="pixel-picture" aria-hidden="true"
    width=${view.width} height=${view.height}></canvas>`;
}

function Movable({ view, channel, place, size, label, move }) {
  const at = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const row = ((event.clientY - box.top) / box.height) * view.height - size.rows / 2;
    const column = ((event.clientX - box.left) / box.width) * view.width - size.columns / 2;
    move({
      row: within(Math.round(row), view.height - size.rows),
      column: within(Math.round(column), view.width - size.columns),
    });
  };
  const step = (event) => {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const found = steps[event.key];
    if (!found) return;
    event.preventDefault();
    move({ row: place.row + found[0], column: place.column + found[1] });
  };
  const percent = (part, whole) => `${(100 * part) / whole}%`;
  return html`<div class="pixel-movable" tabindex="0" role="img" aria-label=${label}
      data-test="pixel-window" onPointerDown=${at} onKeyDown=${step}
      onPointerMove=${(event) => (event.pointerType === "mouse" || event.buttons) && at(event)}>
    <${Picture} view=${view} channel=${channel} />
    <span class="pixel-window" style=${{
      top: percent(place.row, view.height),
      left: percent(place.column, view.width),
      width: percent(size.columns, view.width),
      height: percent(size.rows, view.height),
    }}></span>
  </div>`;
}

function Planes({ view, channel, choose }) {
  const planes = [
    [null, "whole"],
    [0, "red"],
    [1, "green"],
    [2, "blue"],
  ];
  return html`<div class="pixel-planes" role="group" aria-label=${t("pixels.channels")}>
    ${planes.map(
      ([number, name]) => html`
      <button type="button" key=${name} aria-pressed=${channel === number}
        data-test=${`plane-${name}`} onClick=${() => choose(number)}>
        <${Picture} view=${view} channel=${number} />
        <span>${t(`pixels.${name}`)}</span>
      </button>`,
    )}
  </div>`;
}

function Numbers({ view, channel, place, size, unit }) {
  const values = view.channels[channel];
  const rows = Array.from({ length: size.rows }, (_, row) => row + place.row);
  const columns = Array.from({ length: size.columns }, (_, column) => column + place.column);
  const text = (value) => (unit === "byte" ? value : shareText(value));
  return html`<table class="pixel-table number" data-test="pixel-numbers"><tbody>
    ${rows.map(
      (row) =>
        html`<tr key=${row}>${columns.map((column) => {
          const value = values[row * view.width + column];
          const colour = shadeOf(value, channel, view.channels.length);
          return html`<td key=${column} style=${colour}>${text(value)}</td>`;
        })}</tr>`,
    )}
  </tbody></table>`;
}

/** From 0 to 1 with two digits, as ToTensor scales bytes. */
function shareText(value) {
  if (value === 0) return "0";
  return value === 255 ? "1" : (value / 255).toFixed(2).replace(/^0/, "");
}

function shadeOf(value, channel, count) {
  const tint = [0, 1, 2].map((k) => (count === 1 || k === channel ? value : 0));
  const isLight = (count === 1 || channel === 1) && value > 140;
  return { background: `rgb(${tint.join(" ")})`, color: isLight ? "#000" : "#fff" };
}

function paint(canvas, view, channel) {
  const { height, width, channels } = view;
  const image = new ImageData(width, height);
  for (let pixel = 0; pixel < height * width; pixel += 1) {
    for (let k = 0; k < 3; k += 1) {
      const isShown = channels.length === 1 || channel === null || k === channel;
      const plane = channels[channels.length === 1 ? 0 : k];
      image.data[4 * pixel + k] = isShown ? plane[pixel] : 0;
    }
    image.data[4 * pixel + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function windowOf({ height, width }) {
  return { rows: Math.min(WINDOW, height), columns: Math.min(WINDOW, width) };
}

function middleOf(view) {
  const { rows, columns } = windowOf(view);
  return { row: (view.height - rows) >> 1, column: (view.width - columns) >> 1 };
}

function within(value, last) {
  return Math.max(0, Math.min(last, value));
}
