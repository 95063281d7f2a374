import { html } from "memfit/html";
export const tab = { id: "data", title: "tab.data", isThere: () => true, Tab: () => html`<p>data</p>` };
