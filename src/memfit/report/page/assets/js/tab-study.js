import { html } from "memfit/html";
export const tab = { id: "study", title: "tab.study", isThere: () => true, Tab: () => html`<p>study</p>` };
