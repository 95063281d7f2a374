/** Dark or light: the system's choice until the reader makes one. */

import { useEffect, useState } from "memfit/ui/html";
import { remember } from "memfit/ui/i18n";

/** @param {Theme} theme */
export function nextTheme(theme) {
  return theme === "dark" ? "light" : "dark";
}

/** @returns {[Theme, (theme: Theme) => void]} */
export function useTheme() {
  const [theme, setTheme] = useState(/** @type {Theme} */ (document.documentElement.dataset.theme));
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  const choose = (name) => {
    document.documentElement.dataset.theme = name; // before anyone reads a colour
    remember("memfit-theme", name);
    setTheme(name);
  };
  return [theme, choose];
}

/** A colour of the style sheet, such as cssColour("--part-batch"). @param {string} name */
export function cssColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
