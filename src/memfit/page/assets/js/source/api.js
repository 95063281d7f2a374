/** Calls of the local server, with the token from the address. */

const TOKEN_KEY = "memfit-token";
const token = takeToken();

/** What went wrong, in the server's words. */
export class ApiError extends Error {
  /** @param {number} status @param {string} message @param {string} [hint] */
  constructor(status, message, hint = "") {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

/**
 * Ask for JSON.
 * @param {string} path such as "/api/about"
 * @param {{signal?: AbortSignal}} [options]
 */
export async function getJson(path, { signal } = {}) {
  return (await ask(path, { signal })).json();
}

/** Ask for bytes. @param {string} path */
export async function getBytes(path) {
  return new Uint8Array(await (await ask(path, {})).arrayBuffer());
}

/**
 * Ask for something that takes a while.
 * @param {string} path
 * @param {object} body
 * @param {{signal?: AbortSignal, onProgress?: (progress: object) => void}} [options]
 * @returns {Promise<any>} the last line of the answer
 */
export async function postJson(path, body, { signal, onProgress = () => {} } = {}) {
  const headers = { "Content-Type": "application/json" };
  const answer = await ask(path, { signal, headers, method: "POST", body: JSON.stringify(body) });
  let last = null;
  for await (const line of lines(answer.body)) {
    const value = JSON.parse(line);
    if (value.error) throw new ApiError(answer.status, value.error.message, value.error.hint);
    if (value.progress) onProgress(value.progress);
    else last = value;
  }
  if (last === null) throw new ApiError(answer.status, "The server ended without an answer.");
  return last;
}

async function ask(path, { headers = {}, ...options }) {
  const authorization = { Authorization: `Bearer ${token}` };
  const answer = await fetch(path, { ...options, headers: { ...headers, ...authorization } });
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({}));
  throw new ApiError(answer.status, error?.message ?? answer.statusText, error?.hint);
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop() ?? "";
    yield* parts.filter(Boolean);
  }
  if (rest) yield rest;
}

function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem(TOKEN_KEY, found);
    history.replaceState(null, "", location.pathname + location.search);
  }
  try {
    return found ?? sessionStorage.getItem(TOKEN_KEY) ?? "";
  } catch {
    return found ?? "";
  }
}
