import { html } from "memfit/html";
export const tab = { id: "explain", title: "tab.explain", isThere: () => true, Tab: () => html`<p>explain</p>` };
