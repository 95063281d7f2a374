/** Every text of the page in English and Chinese. */

import { useEffect, useState } from "memfit/ui/html";

export const LANGUAGES = { en: "English", zh: "中文" };

const tables = { en: {}, zh: {} };
const listeners = new Set();
let language = document.documentElement.lang === "zh" ? "zh" : "en";

/**
 * Add the texts of one area; both languages have the same keys.
 * @param {{en: Record<string, string>, zh: Record<string, string>}} strings
 */
export function addStrings(strings) {
  for (const name of Object.keys(tables)) Object.assign(tables[name], strings[name]);
}

/**
 * A text in the language of the page.
 * @param {string} key
 * @param {Record<string, string|number>} [values] replace "{name}" in the text
 */
export function t(key, values = {}) {
  const text = tables[language][key] ?? tables.en[key];
  if (text === undefined) throw new Error(`no text for ${key}`);
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** Whether there is a text of this name. @param {string} key */
export function hasText(key) {
  return key in tables.en;
}

export function currentLanguage() {
  return language;
}

/** @param {"en"|"zh"} name */
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
