/** The Plan tab: does it fit, what takes the memory, when, and what would help. */

import { MemoryCurve } from "memfit/charts/curve";
import { ModuleIcicle } from "memfit/charts/icicle";
import { openPlan } from "memfit/engine/plan";
import { MemoryExplorer } from "memfit/memory/explorer";
import { useLimits, viewAt } from "memfit/memory/view";
import { BatchSlider, lastBatch } from "memfit/plan/batch";
import { Command } from "memfit/plan/command";
import { RecipeFacts, RecipeForm } from "memfit/plan/controls";
import { ExportMenu } from "memfit/plan/export";
import { FirstScreen } from "memfit/plan/first";
import { GpuPicker } from "memfit/plan/gpu";
import { measuredOn } from "memfit/plan/measured";
import { FixedBatch, ScriptCard } from "memfit/plan/script";
import { useExact, usePlanning, useReplanForCard } from "memfit/plan/served";
import {
  cardOf,
  planState,
  setBatch,
  setPlanState,
  showPlan,
  usePlanState,
} from "memfit/plan/store";
import { Verdict } from "memfit/plan/verdict";
import { Ways } from "memfit/plan/ways";
import { hasDocument, isServed, readDocument } from "memfit/source/bundle";
import { useLater, useSettled } from "memfit/ui/hooks";
import { html, useEffect, useElement, useMemo, useRef, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";
import { Problem } from "memfit/ui/progress";

/** A replay that takes longer than this waits so long for the slider to rest. */
const PAUSE_MS = 120;

export const tab = {
  id: "plan",
  title: "tab.plan",
  isThere: () => isServed || hasDocument("plan"),
  Tab: PlanTab,
};

function PlanTab({ theme, language }) {
  const state = usePlanState();
  const planning = usePlanning(isServed);
  const [error, setError] = useState(/** @type {Told|null} */ (null));
  useEffect(() => {
    if (isServed || planState().plan) return;
    readDocument("plan")
      .then((document) => showPlan(openPlan(document)))
      .catch(setError);
  }, []);
  useReplanForCard(isServed, planning, state.choice);
  if (error) return html`<p class="error" role="alert">${t("word.error")}: ${error.message}</p>`;
  const isOld = Boolean(planning.progress);
  return html`<div class=${`plan-page ${isOld ? "is-old" : ""}`}>
    ${
      state.plan
        ? html`<${PlanView} state=${state} planning=${planning} theme=${theme}
      language=${language} />`
        : html`
      ${
        isServed
          ? html`<${FirstScreen} planning=${planning} />`
          : html`<section class="card waiting">${t("word.loading")}</section>`
      }
      ${
        planning.form &&
        html`<aside class="card controls" aria-label=${t("control.title")}>
        <${RecipeForm} planning=${planning} /></aside>`
      }`
    }
  </div>`;
}

/** The batch that is shown: each at once while that is quick, else the last one asked for. */
function useShown(plan, card, batch, version) {
  const slow = useRef(0);
  const settled = useSettled(batch, slow.current > PAUSE_MS ? PAUSE_MS : 0);
  const wanted = plan.knows(settled) ? settled : null;
  const last = useRef(/** @type {View|null} */ (null));
  const view = useMemo(() => {
    if (wanted === null) return null;
    const started = performance.now();
    const made = viewAt(plan, card, wanted);
    slow.current = performance.now() - started;
    return made;
  }, [plan, card.usable_bytes, card.context_bytes, wanted, version]);
  if (view) last.current = view;
  return { view, lastView: view ?? last.current, isPending: settled !== batch };
}

function PlanView({ state, planning, theme, language }) {
  const { plan, planId, batch, choice, version } = state;
  const { document } = plan;
  const card = useMemo(() => cardOf(document, choice), [document, choice]);
  const limits = useLimits(plan, card, version);
  const { view, lastView, isPending } = useShown(plan, card, batch, version);
  const drawn = useSettled(lastView, 0); // the verdict answers first, the charts a frame later
  const stretch = useRef(0);
  stretch.current = limits ? lastBatch(limits, batch) : Math.max(stretch.current, 2 * batch);
  const last = stretch.current;
  const details = useMemo(
    () =>
      drawn &&
      html`<${Details} ...${{
        plan,
        planId,
        version,
        selected: state.selected ?? null,
        view: drawn,
        card,
        limits,
        last,
        theme,
        language,
      }} />`,
    [plan, planId, version, state.selected, drawn, card, limits, last, theme, language],
  );
  const exact = useExact(state);
  return html`
    <${Verdict} ...${{ view, limits, document, card, batch }} isPending=${isPending || exact.isBusy}
      needsTrace=${!view && !exact.error} />
    <aside class="card controls" aria-label=${t("control.title")}>
      ${
        plan.isFixed
          ? html`<${FixedBatch} script=${document.script} batch=${batch} />`
          : html`<${BatchSlider} ...${{ batch, limits, last }}
        traced=${plan.isAffine ? null : plan.stops} />`
      }
      <${GpuPicker} ...${{ document, choice, card, isServed }} />
      <${Command} ...${{ document, batch, choice }} />
      <div class="toolbar">
        ${
          view &&
          html`<${ExportMenu} ...${{ plan, planId, view, card, batch: view.batch }}
          selected=${state.selected ?? null} />`
        }
        <${KeepButton} state=${state} card=${card} />
      </div>
      ${exact.error && html`<${Problem} error=${exact.error} />`}
      ${
        isServed
          ? html`<${RecipeForm} planning=${planning} />`
          : html`<${RecipeFacts} document=${document} />`
      }
    </aside>
    <div class="details">${details}</div>`;
}

function KeepButton({ state, card }) {
  const { plan, batch, pinned } = state;
  const isKept = pinned?.plan === plan && pinned.batch === batch && pinned.card.key === card.key;
  const keep = () => setPlanState({ pinned: { plan, batch, card } });
  return html`<button type="button" class="button" data-test="keep" aria-pressed=${isKept}
    title=${t("compare.keepNote")} onClick=${keep}>
    ${t(isKept ? "compare.kept" : "compare.keep")}</button>`;
}

function Details({ plan, planId, version, selected, view, card, limits, last, theme, language }) {
  const [focus, setFocus] = useState(/** @type {Stretch|null} */ (null));
  const select = (position) => setPlanState({ selected: position });
  const frame = useElement();
  const show = ([from, to]) => {
    const margin = Math.max(4, (to - from) * 0.2);
    setFocus({ from: from - margin, to: to + 1 + margin });
    select(to);
    frame.current?.scrollIntoView({ block: "start", behavior: "smooth" });
  };
  const tree = useLater(() => plan.moduleTree(view.batch), [plan, view.timeline]);
  const kept = useRef(/** @type {ModuleNode|null} */ (null));
  kept.current = tree ?? kept.current;
  const curves = useMemo(() => [{ label: "", plan, card }], [plan, card.context_bytes]);
  const title = t(plan.document.script ? "script.timeline" : "time.title");
  return html`${plan.document.script && html`<${ScriptCard} plan=${plan} script=${plan.document.script} />`}
    <div ref=${frame}><${MemoryExplorer} timeline=${view.timeline} contextBytes=${card.context_bytes}
      limitBytes=${card.usable_bytes} selected=${selected} select=${select}
      focus=${focus} theme=${theme} language=${language} title=${title} /></div>
    ${
      !plan.isFixed &&
      html`<section class="card" aria-labelledby="curve-title">
      <h2 id="curve-title">${t("curve.title")}</h2>
      <${MemoryCurve} ...${{ curves, limits, last, theme, language, version }} batch=${view.batch}
        limitBytes=${card.usable_bytes} measured=${measuredOn(plan.document, card)} choose=${setBatch}
        label=${t("curve.title")} />
    </section>`
    }
    <section class="card" aria-labelledby="tree-title">
      <h2 id="tree-title">${t("tree.title")}</h2>
      <p class="muted small">${t("tree.about")}</p>
      ${
        kept.current &&
        html`<${ModuleIcicle} tree=${kept.current} show=${show}
        language=${language} />`
      }
    </section>
    <${Ways} document=${plan.document} planId=${planId} />`;
}
