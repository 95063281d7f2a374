/** Preact with tagged templates, and every hook from one place. */

import { Fragment, createContext, h, render } from "preact";
import htm from "htm";

export * from "preact/hooks";
export { Fragment, createContext, render };
export const html = htm.bind(h);
