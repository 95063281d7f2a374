/** The command that says the same, ready to copy. */

import { html, useState } from "memfit/html";
import { t } from "memfit/i18n";
import { gpuFlag } from "memfit/plan-store";

const COPIED_MS = 1500;

/**
 * `memfit plan …` as a shell takes it.
 * @param {object} document of a plan
 * @param {number} batch
 * @param {object} choice of a card
 */
export function commandLine(document, batch, choice) {
  return wordsOf(document, batch, choice).join(" ");
}

function wordsOf(document, batch, choice) {
  return [...document.command, "--batch-size", String(batch), "--gpu", gpuFlag(choice)].map(quoted);
}

/** @param {{document: object, batch: number, choice: object}} properties */
export function Command({ document, batch, choice }) {
  const line = commandLine(document, batch, choice);
  const [copied, setCopied] = useState(null);
  const copy = async () => {
    await copyText(line);
    setCopied(line);
    setTimeout(() => setCopied(null), COPIED_MS);
  };
  return html`<div class="command">
    <span class="label">${t("control.command")}</span>
    <div class="command-line">
      <code data-test="command" tabindex="0">${wordsOf(document, batch, choice).map(
        (word, index) => html`${index ? " " : ""}<span key=${index}>${word}</span>`)}</code>
      <button type="button" class="button" data-test="copy" onClick=${copy} aria-live="polite">
        ${t(copied === line ? "word.copied" : "word.copy")}</button>
    </div>
  </div>`;
}

/** A word as a POSIX shell takes it. @param {string} word */
export function quoted(word) {
  if (/^[\w@%+=:,./-]+$/.test(word)) return word;
  return `'${word.replaceAll("'", `'"'"'`)}'`;
}

/** To the clipboard; a page from the disk may only have the older way. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
