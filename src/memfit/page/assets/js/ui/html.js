/** Preact with tagged templates, and every hook from one place. */

import htm from "htm";
import { createContext, Fragment, h, render } from "preact";
import { useRef } from "preact/hooks";

export * from "preact/hooks";
export { createContext, Fragment, render };
export const html = htm.bind(h);

/** A reference to an element, which is there once the component was drawn. @returns {{current: any}} */
export function useElement() {
  return useRef(null);
}
