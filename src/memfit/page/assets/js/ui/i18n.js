/** Every text of the page in English and Chinese. */

import { texts } from "memfit/source/bundle";
import { useEffect, useState } from "memfit/ui/html";

/** @type {[Language, string][]} */
export const LANGUAGES = [
  ["en", "English"],
  ["zh", "中文"],
];

const listeners = new Set();
let language = document.documentElement.lang === "zh" ? "zh" : "en";

/**
 * A text in the language of the page.
 * @param {string} key
 * @param {Record<string, string|number>} [values] replace "{name}" in the text
 */
export function t(key, values = {}) {
  if (!hasText(key)) throw new Error(`no text for ${key}`);
  return texts[key][language].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** Whether there is a text of this name. @param {string} key */
export function hasText(key) {
  return key in texts;
}

export function currentLanguage() {
  return language;
}

/** @param {Language} name */
export function setLanguage(name) {
  language = name;
  document.documentElement.lang = name;
  remember("memfit-language", name);
  for (const listener of listeners) listener(name);
}

/** The language; a component that uses it is drawn again when it changes. */
export function useLanguage() {
  const [name, setName] = useState(language);
  useEffect(() => {
    listeners.add(setName);
    return () => listeners.delete(setName);
  }, []);
  return name;
}

/** Keep a choice for the next visit, where the browser allows it. */
export function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // a page from the disk, or a private window: the choice lasts as long as the page
  }
}
