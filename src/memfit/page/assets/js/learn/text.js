/** Texts with a little markup: **strong** and `code`. */

import { html } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const MARKS = /(\*\*[^*]+\*\*|`[^`]+`)/;

/**
 * A text of the table as elements; its values are shown as they are.
 * @param {{of: string, values?: Record<string, string|number>}} props
 */
export function Rich({ of: key, values = {} }) {
  return t(key, values)
    .split(MARKS)
    .map((piece) => {
      if (piece.startsWith("**")) return html`<strong>${piece.slice(2, -2)}</strong>`;
      if (piece.startsWith("`")) return html`<code>${piece.slice(1, -1)}</code>`;
      return piece;
    });
}

/** A paragraph. @param {{of: string, values?: object, muted?: boolean}} props */
export function Para({ of: key, values, muted = false }) {
  return html`<p class=${muted ? "muted small" : ""}><${Rich} of=${key} values=${values} /></p>`;
}

/** A chapter with its number. */
export function Chapter({ number, id, children }) {
  return html`<section class="card chapter" id=${`learn-${id}`} data-test=${`chapter-${id}`}>
    <h2><span class="chapter-number">${number}</span>${t(`learn.${id}.title`)}</h2>
    ${children}
  </section>`;
}
