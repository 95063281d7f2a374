import { html } from "memfit/html";
export const tab = { id: "plan", title: "tab.plan", isThere: () => true, Tab: () => html`<p>plan</p>` };
