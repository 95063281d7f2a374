/** Small hooks: the size of an element, work put off, what was drawn last. */

import { useEffect, useElement, useLayoutEffect, useState } from "memfit/ui/html";

/** The width of an element in CSS pixels; 0 until it is laid out. @returns {[{current: any}, number]} */
export function useWidth() {
  const ref = useElement();
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const measure = () => setWidth(Math.floor(ref.current?.clientWidth ?? 0));
    const observer = new ResizeObserver(measure);
    observer.observe(ref.current);
    measure();
    return () => observer.disconnect();
  }, []);
  return [ref, width];
}

/**
 * A value worked out after the page was drawn; null until then, and stale values are dropped.
 * @param {() => any} work
 * @param {any[]} inputs
 */
export function useLater(work, inputs) {
  const [answer, setAnswer] = useState({ inputs: /** @type {any[]} */ ([]), value: null });
  useEffect(() => {
    const timer = setTimeout(() => setAnswer({ inputs, value: work() }), 0);
    return () => clearTimeout(timer);
  }, inputs);
  const isFresh = inputs.every((value, index) => value === answer.inputs[index]);
  return isFresh ? answer.value : null;
}

/**
 * Follow a value that is cheap to ask for at once, and one that is not after a pause.
 * @template T
 * @param {T} value
 * @param {number} pauseMs 0 follows with the next frame
 */
export function useSettled(value, pauseMs) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    if (value === settled) return undefined;
    if (pauseMs > 0) {
      const timer = setTimeout(() => setSettled(value), pauseMs);
      return () => clearTimeout(timer);
    }
    const frame = requestAnimationFrame(() => setSettled(value));
    return () => cancelAnimationFrame(frame);
  }, [value, settled, pauseMs]);
  return settled;
}

/** What is being typed until it is taken: drawing the page again must not undo it. */
export function useDraft(text) {
  const [draft, setDraft] = useState(/** @type {string|null} */ (null));
  const onInput = (event) => setDraft(event.target.value);
  return { typing: { value: draft ?? text, onInput }, taken: () => setDraft(null) };
}

/** Close something when the reader clicks elsewhere, or presses Escape: its button is next. */
export function useDismiss(ref, isOpen, close) {
  useEffect(() => {
    if (!isOpen) return undefined;
    const away = (event) => ref.current?.contains(event.target) || close();
    const onEscape = (event) => {
      if (event.key !== "Escape") return;
      close();
      ref.current?.querySelector("button")?.focus();
    };
    document.addEventListener("pointerdown", away);
    document.addEventListener("keydown", onEscape);
    return () => {
      document.removeEventListener("pointerdown", away);
      document.removeEventListener("keydown", onEscape);
    };
  }, [isOpen]);
}
