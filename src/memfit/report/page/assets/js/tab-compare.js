import { html } from "memfit/html";
export const tab = { id: "compare", title: "tab.compare", isThere: () => true, Tab: () => html`<p>compare</p>` };
