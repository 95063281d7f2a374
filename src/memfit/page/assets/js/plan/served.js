/** Plans from the server: asked when something changes, the question before it given up. */

import { openPlan } from "memfit/engine/plan";
import { gpuFlag, parseGib, planState, setPlanState, showPlan } from "memfit/plan/store";
import { getJson, postJson } from "memfit/source/api";
import { useEffect, useRef, useState } from "memfit/ui/html";

const FIRST_CARD = "rtx-3060"; // where the server names none; DEFAULT_CARD of memfit/api.py
const PAUSE_MS = 350;
const EXACT_PAUSE_MS = 150;

/**
 * The form and what became of it.
 * @param {boolean} isServed
 */
export function usePlanning(isServed) {
  const [about, setAbout] = useState(/** @type {any} */ (null));
  const [form, setForm] = useState(/** @type {any} */ (null));
  const [progress, setProgress] = useState(/** @type {Progress|null} */ (null));
  const [error, setError] = useState(/** @type {Told|null} */ (null));
  const running = useRef(/** @type {AbortController|null} */ (null));
  const timer = useRef(0);
  const cancel = () => {
    clearTimeout(timer.current);
    running.current?.abort();
    running.current = null;
    setProgress(null);
  };
  const ask = async (wanted) => {
    cancel();
    if (!wanted?.model) return;
    const own = new AbortController();
    running.current = own;
    setError(null);
    setProgress({ stage: "building" });
    try {
      const onProgress = (step) => running.current === own && setProgress(step);
      const answer = await postJson("/api/plan", requestOf(wanted), {
        signal: own.signal,
        onProgress,
      });
      if (running.current === own) take(answer);
    } catch (problem) {
      if (running.current === own) setError(problem);
    }
    if (running.current === own) cancel();
  };
  const change = (values, pauseMs = PAUSE_MS) => {
    const wanted = { ...form, ...values };
    setForm(wanted);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => ask(wanted), pauseMs);
  };
  useEffect(() => {
    if (!isServed) return undefined;
    getJson("/api/about").then((found) => {
      const wanted = { ...found.recipe, optimizer: optimizerText(found.recipe.optimizer) };
      setAbout(found);
      setForm(wanted);
      setPlanState({ choice: choiceOf(found) });
      ask(wanted);
    }, setError);
    return cancel;
  }, []);
  return { about, form, change, ask: () => ask(form), cancel, progress, error };
}

/** Ask for another card when the reader picks one: its kernels are not those of the last. */
export function useReplanForCard(isServed, planning, choice) {
  const asked = useRef(/** @type {string|null} */ (null));
  const wanted = choice && `${choice.key} ${choice.sizeBytes}`;
  useEffect(() => {
    if (isServed && planning.form && asked.current && asked.current !== wanted) planning.ask();
    asked.current = wanted;
  }, [wanted]);
}

/**
 * Exact sizes for a batch that was only interpolated, a moment after the slider rests.
 * @returns {{isBusy: boolean, error: Told|null}}
 */
export function useExact({ plan, planId, batch, version }) {
  const [state, setState] = useState({ isBusy: false, error: /** @type {Told|null} */ (null) });
  useEffect(() => {
    if (!planId || !plan || plan.isExact(batch)) return undefined;
    const own = new AbortController();
    const timer = setTimeout(async () => {
      setState({ isBusy: true, error: null });
      try {
        const path = `/api/plan/${planId}/sizes?batch=${batch}`;
        const answer = await getJson(path, { signal: own.signal });
        if (answer.tape) plan.addTraced(batch, answer.tape);
        else plan.setExact(batch, answer.bytes);
        setState({ isBusy: false, error: null });
        setPlanState({ version: planState().version + 1 });
      } catch (error) {
        if (!own.signal.aborted) setState({ isBusy: false, error });
      }
    }, EXACT_PAUSE_MS);
    return () => {
      clearTimeout(timer);
      own.abort();
    };
  }, [plan, planId, batch, version]);
  return state;
}

function take({ plan: planId, document }) {
  const { plan: before, batch, choice } = planState();
  const isMoved = before && batch !== before.document.batch_size;
  const plan = openPlan(document);
  const isKept = isMoved && (document.is_affine || plan.isExact(batch));
  showPlan(plan, { planId, batch: isKept ? batch : null, choice });
}

function requestOf(form) {
  const { choice } = planState();
  const recipe = { ...form, batch_size: null };
  return { recipe, gpu: gpuFlag(choice), free_bytes: choice.freeBytes };
}

/** "sgd,momentum=0.9" as memfit plan --optimizer takes it. */
export function optimizerText(optimizer) {
  if (optimizer === null || typeof optimizer !== "object") return optimizer ?? "";
  const { name, ...options } = optimizer;
  return [name, ...Object.entries(options).map(([key, value]) => `${key}=${value}`)].join(",");
}

/** The card to begin with: one of the catalogue, or a size such as "11gib". */
function choiceOf({ gpu, cards }) {
  const key = gpu ?? FIRST_CARD;
  const isKnown = cards.some((card) => card.key === key);
  return { key: isKnown ? key : null, freeBytes: null, sizeBytes: isKnown ? null : parseGib(key) };
}
