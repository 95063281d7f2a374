import { html } from "memfit/html";
export const tab = { id: "runs", title: "tab.runs", isThere: () => true, Tab: () => html`<p>runs</p>` };
