/** Data: what the images are, and what the loader makes of them. */

import { Classes, Facts, Start, Warnings } from "memfit/data/facts";
import { Delivered, Histogram, Sample, Samples } from "memfit/data/pictures";
import { getJson } from "memfit/source/api";
import { hasDocument, isServed, readDocument } from "memfit/source/bundle";
import { Chooser, Failure } from "memfit/ui/chooser";
import { html, useEffect, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

export const tab = {
  id: "data",
  title: "tab.data",
  isThere: () => isServed || hasDocument("data"),
  Tab: DataTab,
};

function DataTab() {
  return isServed ? html`<${ServedData} />` : html`<${FileData} />`;
}

function FileData() {
  const [found, setFound] = useState(/** @type {any} */ (null));
  useEffect(() => {
    readDocument("data").then(setFound);
  }, []);
  return found ? html`<${DataSheet} data=${found} />` : html`<p>${t("word.loading")}</p>`;
}

function ServedData() {
  const [names, setNames] = useState(/** @type {string[]|null} */ (null));
  const [name, setName] = useState("");
  const [answer, setAnswer] = useState(/** @type {{data?: DataDocument, error?: Told}} */ ({}));
  useEffect(() => {
    const fail = (error) => setAnswer({ error });
    getJson("/api/about").then((about) => {
      setNames(about.datasets);
      setName(about.datasets[0] ?? "");
    }, fail);
  }, []);
  useEffect(() => {
    if (!name) return undefined;
    const stop = new AbortController();
    setAnswer({});
    getJson(`/api/data/${encodeURIComponent(name)}`, { signal: stop.signal }).then(
      (data) => setAnswer({ data }),
      (error) => stop.signal.aborted || setAnswer({ error }),
    );
    return () => stop.abort();
  }, [name]);
  if (names?.length === 0) return html`<p class="card">${t("data.none")}</p>`;
  return html`
    ${
      names &&
      html`<${Chooser} label="data.choose" names=${names} name=${name}
      choose=${setName} />`
    }
    ${answer.error && html`<${Failure} error=${answer.error} />`}
    ${answer.data && html`<${DataSheet} data=${answer.data} />`}
    ${
      !answer.data &&
      !answer.error &&
      html`<p class="muted" aria-live="polite">
      ${t("data.wait")}</p>`
    }`;
}

/** Everything about a source of images. @param {{data: DataDocument}} props a data document */
export function DataSheet({ data }) {
  return html`<div class="data" data-test="data-view">
    <${Start} data=${data} />
    <${Warnings} data=${data} />
    <${Samples} data=${data} />
    <${Sample} data=${data} />
    <${Histogram} data=${data} />
    <${Delivered} data=${data} />
    <${Classes} data=${data} />
    <${Facts} data=${data} />
  </div>`;
}
