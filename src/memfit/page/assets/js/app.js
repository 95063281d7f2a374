/** The frame of the page: tabs, language, theme. Each tab is a module of its own. */

import { tab as compare } from "memfit/tabs/compare";
import { tab as data } from "memfit/tabs/data";
import { tab as explain } from "memfit/tabs/explain";
import { tab as learn } from "memfit/tabs/learn";
import { tab as plan } from "memfit/tabs/plan";
import { tab as runs } from "memfit/tabs/runs";
import { tab as study } from "memfit/tabs/study";
import { html, render, useEffect, useState } from "memfit/ui/html";
import { LANGUAGES, setLanguage, t, useLanguage } from "memfit/ui/i18n";
import { nextTheme, useTheme } from "memfit/ui/theme";

/**
 * A tab: `isThere` says whether this page has something to show in it.
 * @typedef {{id: string, title: string, isThere: () => boolean, Tab: Function}} Tab
 */

/** @type {Tab[]} */
const TABS = [plan, compare, explain, data, study, runs, learn];

function App() {
  const language = useLanguage();
  const [theme, setTheme] = useTheme();
  const there = TABS.filter((tab) => tab.isThere());
  const [open, setOpen] = useOpenTab(there);
  useEffect(() => {
    document.title = `memfit · ${t(open.title)}`;
  }, [open, language]);
  return html`
    <a class="skip" href="#main">${t("shell.skip")}</a>
    <header class="top">
      <h1 class="brand">memfit</h1>
      <${TabList} tabs=${there} open=${open} setOpen=${setOpen} />
      <div class="switches">
        <${LanguageSwitch} language=${language} />
        <button type="button" class="quiet" data-test="theme" title=${t(`shell.theme.${theme}`)}
          aria-label=${t(`shell.theme.${theme}`)} onClick=${() => setTheme(nextTheme(theme))}>
          ${theme === "dark" ? "☾" : "☀"}
        </button>
      </div>
    </header>
    <main id="main" tabindex="-1">
      ${there.map(
        (tab) => html`
        <section key=${tab.id} id=${`panel-${tab.id}`} role="tabpanel" hidden=${tab !== open}
          aria-labelledby=${`tab-${tab.id}`}>
          <${Once} when=${tab === open}>
            <${tab.Tab} isOpen=${tab === open} language=${language} theme=${theme} />
          <//>
        </section>`,
      )}
    </main>
    <footer>${t("shell.footer")}</footer>`;
}

/** Draw a tab when it is first opened, and keep it: what was set there stays. */
function Once({ when, children }) {
  const [wasOpen, setWasOpen] = useState(when);
  if (when && !wasOpen) setWasOpen(true);
  return when || wasOpen ? children : null;
}

function TabList({ tabs, open, setOpen }) {
  const move = (event) => {
    const at = tabs.indexOf(open);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = tabs.at(to % tabs.length);
    setOpen(next);
    document.getElementById(`tab-${next.id}`)?.focus();
  };
  return html`<div role="tablist" class="tabs" aria-label=${t("shell.tabs")} onKeyDown=${move}>
    ${tabs.map(
      (tab) => html`
      <button type="button" role="tab" key=${tab.id} id=${`tab-${tab.id}`}
        aria-controls=${`panel-${tab.id}`} aria-selected=${tab === open}
        tabindex=${tab === open ? 0 : -1} onClick=${() => setOpen(tab)}>${t(tab.title)}</button>`,
    )}
  </div>`;
}

function LanguageSwitch({ language }) {
  return html`<div class="segmented" role="group" aria-label=${t("shell.language")}>
    ${LANGUAGES.map(
      ([name, label]) => html`
      <button type="button" key=${name} lang=${name} data-test=${`language-${name}`}
        aria-pressed=${name === language} onClick=${() => setLanguage(name)}>${label}</button>`,
    )}
  </div>`;
}

/** The open tab, kept in the address so that a link leads to it. */
function useOpenTab(tabs) {
  const named = () => tabs.find((tab) => `#${tab.id}` === location.hash) ?? tabs[0];
  const [open, setOpen] = useState(named);
  useEffect(() => {
    const follow = () => setOpen(named());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const choose = (tab) => {
    history.replaceState(null, "", `#${tab.id}`);
    setOpen(tab);
    scrollTo(0, 0);
  };
  return [open, choose];
}

render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
