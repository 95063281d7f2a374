/** Runs: a training run's curves while it goes on, and memory against the plan. */

import { joined, NOTHING } from "memfit/runs/follow";
import { RunView } from "memfit/runs/view";
import { getJson } from "memfit/source/api";
import { hasDocument, isServed, readDocument } from "memfit/source/bundle";
import { Chooser, Failure } from "memfit/ui/chooser";
import { html, useEffect, useRef, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const POLL_MS = 2000;

export const tab = {
  id: "runs",
  title: "tab.runs",
  isThere: () => isServed || hasDocument("runs"),
  Tab: RunsTab,
};

function RunsTab({ isOpen, theme }) {
  return isServed
    ? html`<${ServedRuns} isOpen=${isOpen} theme=${theme} />`
    : html`<${FileRuns} theme=${theme} />`;
}

function FileRuns({ theme }) {
  const [runs, setRuns] = useState(/** @type {RunDocument[]} */ ([]));
  const [name, setName] = useState("");
  useEffect(() => {
    readDocument("runs").then(setRuns);
  }, []);
  const document = runs.find((run) => run.name === name) ?? runs[0];
  if (!document) return html`<p class="muted">${t("word.loading")}</p>`;
  return html`
    <${Chooser} label="runs.choose" names=${runs.map((run) => run.name)} name=${document.name}
      choose=${setName} />
    <${RunView} key=${document.name} followed=${joined(NOTHING, document)} theme=${theme} />`;
}

function ServedRuns({ isOpen, theme }) {
  const [names, setNames] = useState(/** @type {string[]|null} */ (null));
  const [name, setName] = useState("");
  const [error, setError] = useState(/** @type {Told|null} */ (null));
  useEffect(() => {
    if (!isOpen) return;
    getJson("/api/about").then((about) => {
      setNames(about.runs);
      setName((old) => (about.runs.includes(old) ? old : (about.runs[0] ?? "")));
    }, setError);
  }, [isOpen]);
  const [followed, failure] = useRun(name, isOpen);
  if (names?.length === 0) return html`<p class="card">${t("runs.none")}</p>`;
  const problem = error ?? failure;
  return html`
    ${
      names &&
      html`<${Chooser} label="runs.choose" names=${names} name=${name}
      choose=${setName} />`
    }
    ${problem && html`<${Failure} error=${problem} />`}
    ${followed.document && html`<${RunView} followed=${followed} theme=${theme} />`}
    ${!followed.document && !problem && html`<p class="muted">${t("word.loading")}</p>`}`;
}

/**
 * A run, asked again while it goes on and someone looks.
 * @returns {[Followed, Told|null]}
 */
function useRun(name, isOpen) {
  const [followed, setFollowed] = useState(NOTHING);
  const [failure, setFailure] = useState(/** @type {Told|null} */ (null));
  const known = useRef(NOTHING);
  useEffect(() => {
    if (!name || !isOpen) return undefined;
    if (known.current.document?.name !== name) known.current = NOTHING;
    setFollowed(known.current);
    const stop = new AbortController();
    let timer = 0;
    const take = async () => {
      try {
        known.current = await askedFor(name, known.current, stop.signal);
        setFollowed(known.current);
        setFailure(null);
      } catch (error) {
        if (stop.signal.aborted) return;
        setFailure(error);
      }
      const isRunning = known.current.document?.status === "running";
      if (isRunning && !stop.signal.aborted) timer = setTimeout(take, POLL_MS);
    };
    take();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [name, isOpen]);
  return [followed, failure];
}

async function askedFor(name, known, signal) {
  const ask = (after) =>
    getJson(`/api/runs/${encodeURIComponent(name)}?after=${after}`, { signal });
  const found = joined(known, await ask(known.rows.length));
  return found ?? joined(NOTHING, await ask(0)) ?? NOTHING;
}
