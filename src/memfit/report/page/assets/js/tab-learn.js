import { html } from "memfit/html";
export const tab = { id: "learn", title: "tab.learn", isThere: () => true, Tab: () => html`<p>learn</p>` };
