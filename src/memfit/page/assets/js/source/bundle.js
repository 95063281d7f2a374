/** What the page was given: inside the file, or "served" when a server answers. */

const bundle = JSON.parse(document.getElementById("memfit-bundle")?.textContent ?? "{}");
const unpacked = new Map();

/**
 * Every text of the page by its key, the parts of memory in order, and the fields of the form.
 * @type {{texts: Record<string, {en: string, zh: string}>,
 *   parts: {part: string, number: string}[],
 *   form: {name: string, more: boolean, schema: Record<string, any>}[]}}
 */
export const { texts, parts, form = [] } = bundle;

/** Whether a server is behind the page. */
export const isServed = bundle.mode === "served";

/** Whether the file has a document of this name. @param {string} name */
export function hasDocument(name) {
  return Boolean(bundle[name]);
}

/**
 * A document of the file, unpacked; null when it has none.
 * @param {string} name
 * @returns {Promise<any>}
 */
export async function readDocument(name) {
  if (!unpacked.has(name)) {
    unpacked.set(
      name,
      readBytes(name).then((b) => b && JSON.parse(new TextDecoder().decode(b))),
    );
  }
  return unpacked.get(name);
}

/**
 * The bytes of a document of the file; null when it has none.
 * @param {string} name
 * @returns {Promise<Uint8Array|null>}
 */
export async function readBytes(name) {
  if (!hasDocument(name)) return null;
  const packed = Uint8Array.from(atob(bundle[name].gzip), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
