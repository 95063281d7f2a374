/** The modules of the model by what each keeps for backward: an icicle, and the same as a list. */

import { formatBytes, formatCount, formatShape, formatShare } from "memfit/ui/format";
import { html, useElement, useMemo, useState } from "memfit/ui/html";
import { t } from "memfit/ui/i18n";

const ROW = 26;
const NARROWEST = 0.0015; // of the width: narrower modules are left to the zoom
const NARROWEST_NAME = 0.03;
const LIGHTEST_PAPER = 55; // per cent of the colour under which the page shows through
const MOST_LISTED = 40;

/**
 * @param {{tree: ModuleNode, show: (span: [number, number]) => void, language: Language}} properties
 */
export function ModuleIcicle({ tree, show }) {
  const byPath = useMemo(() => indexed(tree), [tree]);
  const [rootPath, setRoot] = useState("");
  const [activePath, setActive] = useState("");
  const root = byPath.get(rootPath) ?? tree;
  const active = byPath.get(activePath) ?? root;
  const cells = useMemo(() => laidOut(root), [root]);
  const frame = useElement();
  const keys = (event) => {
    const next = neighbour(event.key, active, byPath, root);
    if (event.key === "Escape" && root !== tree) setRoot(parentPath(rootPath));
    if (!next) return;
    event.preventDefault();
    setActive(next.path);
    frame.current.querySelector(`[data-path="${CSS.escape(next.path)}"]`)?.focus();
  };
  const rows = Math.max(...cells.map((cell) => cell.depth)) + 1;
  if (!tree.totalBytes) return html`<p class="muted">${t("tree.nothing")}</p>`;
  return html`<div class="icicle" data-test="icicle" data-total=${tree.totalBytes}>
    <${Trail} root=${root} byPath=${byPath} setRoot=${setRoot} />
    <div class="cells" ref=${frame} style=${{ height: `${rows * ROW}px` }} onKeyDown=${keys}
      role="group" aria-label=${t("tree.title")}>
      ${cells.map(
        (cell) => html`<${Cell} key=${cell.node.path || "(root)"} cell=${cell}
        share=${cell.node.totalBytes / tree.totalBytes} isActive=${cell.node === active}
        setActive=${setActive} zoom=${() => setRoot(cell.node.path)} />`,
      )}
    </div>
    <${Facts} node=${active} tree=${tree} show=${show} zoom=${() => setRoot(active.path)}
      canZoom=${active.children.length > 0 && active !== root} />
    <${List} tree=${tree} byPath=${byPath} show=${show} />
  </div>`;
}

function Trail({ root, byPath, setRoot }) {
  const words = root.path ? root.path.split(".") : [];
  const paths = ["", ...words.map((_, index) => words.slice(0, index + 1).join("."))];
  return html`<nav class="trail small" aria-label=${t("tree.trail")}>
    ${paths.map(
      (path, index) => html`<span key=${path}>${index > 0 && " › "}
      <button type="button" class="link" disabled=${path === root.path}
        onClick=${() => setRoot(path)}>
        ${byPath.get(path).name || t("tree.model")}</button></span>`,
    )}
  </nav>`;
}

function Cell({ cell, share, isActive, setActive, zoom }) {
  const { node, left, width, depth } = cell;
  const strength = Math.round(28 + 72 * Math.min(1, Math.sqrt(share)));
  const style = {
    color: strength > LIGHTEST_PAPER ? "var(--on-part)" : "var(--text)",
    left: `${100 * left}%`,
    width: `${100 * width}%`,
    top: `${depth * ROW}px`,
    background: `color-mix(in srgb, var(--part-activations) ${strength}%, var(--surface))`,
  };
  const name = node.name || t("tree.model");
  return html`<button type="button" class=${`cell ${isActive ? "active" : ""}`} style=${style}
    data-path=${node.path} data-test="module" tabindex=${isActive ? 0 : -1}
    aria-label=${`${node.path || name}: ${formatBytes(node.totalBytes)}`}
    onPointerEnter=${() => setActive(node.path)} onFocus=${() => setActive(node.path)}
    onClick=${zoom}>${width > NARROWEST_NAME && html`<span>${name}</span>`}</button>`;
}

function Facts({ node, tree, show, zoom, canZoom }) {
  const shapes = counted(node.shapes.map((shape) => formatShape(shape) || t("tree.scalar")));
  return html`<div class="module-facts" data-test="module-facts" aria-live="polite">
    <p><code>${node.path || node.name || t("tree.model")}</code>${" "}
      <b class="number" title=${`${formatCount(node.totalBytes)} B`}>
        ${formatBytes(node.totalBytes)}</b>${" "}
      <span class="muted number">${t("tree.share", {
        share: formatShare(node.totalBytes / tree.totalBytes),
      })}</span>
      ${
        node.children.length > 0 &&
        html`<span class="muted number">
        ${" · "}${t("tree.own", { size: formatBytes(node.keptBytes) })}</span>`
      }
    </p>
    <p class="small muted shapes">${shapes.length ? shapes.join("   ") : t("tree.noTensors")}</p>
    <div class="toolbar">
      ${
        node.span &&
        html`<button type="button" class="button" data-test="module-show"
        onClick=${() => show(node.span)}>${t("tree.show")}</button>`
      }
      ${
        canZoom &&
        html`<button type="button" class="button" onClick=${zoom}>
        ${t("tree.zoom")}</button>`
      }
    </div>
  </div>`;
}

/** The modules that keep most themselves, for those who read lists. */
function List({ byPath, tree, show }) {
  const rows = [...byPath.values()]
    .filter((node) => node.keptBytes > 0)
    .sort((a, b) => b.keptBytes - a.keptBytes)
    .slice(0, MOST_LISTED);
  return html`<details class="small" data-test="module-list">
    <summary>${t("tree.list", { count: rows.length })}</summary>
    <div class="wide"><table><tbody>
      ${rows.map(
        (node) => html`<tr key=${node.path}>
        <td><button type="button" class="link mono" onClick=${() => node.span && show(node.span)}>
          ${node.path || t("tree.model")}</button></td>
        <td class="right">${formatBytes(node.keptBytes)}</td>
        <td class="right muted">${formatShare(node.keptBytes / tree.totalBytes)}</td>
      </tr>`,
      )}
    </tbody></table></div>
  </details>`;
}

function indexed(tree) {
  const found = new Map();
  const visit = (node) => {
    found.set(node.path, node);
    node.children.forEach(visit);
  };
  visit(tree);
  return found;
}

/** Cells of a node and those below it: left and width as shares, and how deep. */
function laidOut(root) {
  const cells = [];
  const visit = (node, left, width, depth) => {
    if (width < NARROWEST) return;
    cells.push({ node, left, width, depth });
    let at = left;
    for (const child of node.children) {
      const share = node.totalBytes ? (width * child.totalBytes) / node.totalBytes : 0;
      visit(child, at, share, depth + 1);
      at += share;
    }
  };
  visit(root, 0, 1, 0);
  return cells;
}

function neighbour(key, node, byPath, root) {
  if (key === "ArrowUp") return node === root ? null : byPath.get(parentPath(node.path));
  const withBytes = (nodes) => nodes.filter((child) => child.totalBytes > 0);
  if (key === "ArrowDown") {
    return withBytes(node.children).toSorted((a, b) => b.totalBytes - a.totalBytes)[0];
  }
  const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (!step || node === root) return null;
  const siblings = withBytes(byPath.get(parentPath(node.path)).children);
  return siblings[siblings.indexOf(node) + step];
}

function parentPath(path) {
  return path.slice(0, Math.max(0, path.lastIndexOf(".")));
}

/** Equal texts once, with how often. */
function counted(texts) {
  const counts = new Map();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return [...counts].map(([text, count]) => (count > 1 ? `${count} × (${text})` : `(${text})`));
}
