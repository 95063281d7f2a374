/** The command that says the same, ready to copy. */

import { gpuFlag, sizeFlag } from "memfit/plan/store";
import { html, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const COPIED_MS = 1500;

/** `memfit plan …`, or `memfit run … SCRIPT …`, as words that a shell takes. */
function wordsOf(document, batch, choice) {
  const free = choice.freeBytes ? ["--free", sizeFlag(choice.freeBytes)] : [];
  const card = ["--gpu", gpuFlag(choice), ...free];
  const { command, script } = document;
  if (!script) return [...command, "--batch-size", String(batch), ...card].map(quoted);
  const asked = script.knob.batch === null ? [] : ["--batch", String(batch)];
  return [...command.slice(0, 2), ...asked, ...card, ...command.slice(2)].map(quoted);
}

/** A flag and its value stay on one line while there is room. */
function phrasesOf(words) {
  const phrases = [];
  words.forEach((word, index) => {
    const isValue = words[index - 1]?.startsWith("--") && !word.startsWith("--");
    if (isValue) phrases.push(`${phrases.pop()} ${word}`);
    else phrases.push(word);
  });
  return phrases;
}

/** @param {{document: PlanDocument, batch: number, choice: CardChoice}} properties */
export function Command({ document, batch, choice }) {
  const words = wordsOf(document, batch, choice);
  const line = words.join(" ");
  const [copied, setCopied] = useState(/** @type {string|null} */ (null));
  const copy = async () => {
    await copyText(line);
    setCopied(line);
    setTimeout(() => setCopied(null), COPIED_MS);
  };
  return html`<div class="command">
    <span class="label">${t("control.command")}</span>
    <div class="command-line">
      <code data-test="command" tabindex="0">${phrasesOf(words).map(
        (phrase, index) => html`${index ? " " : ""}<span key=${index}>${phrase}</span>`,
      )}</code>
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
