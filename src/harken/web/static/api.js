// Requests to the API. One error shape: `fact` for people, `hint` what to do next.

export class ApiError extends Error {
  constructor(status, { code = "internal", message = "The server failed.", hint = "", current = null } = {}, retryAfter = null) {
    super(message);
    Object.assign(this, { status, code, hint, current, retryAfter });
  }

  /** Whether the same request may succeed later without anybody changing it. */
  get passing() {
    return this.status === 0 || this.status === 401 || this.status === 429 || this.status >= 500;
  }
}

const KEEPALIVE_CHARS = 20_000; // browsers refuse keepalive beyond 64 KiB in flight
/** An address of this server: the studio may live below a path of its host. */
export const base = document.querySelector('meta[name="base"]')?.content ?? "";
export const at = (path) => base + path;
const meta = () => document.querySelector('meta[name="csrf"]');

/** A value whose texts can be stored: half an emoji, as a field's length may leave it, becomes �; NUL goes. */
export function storable(value) {
  if (typeof value === "string") return (value.toWellFormed?.() ?? value).replaceAll("\0", "");
  if (Array.isArray(value)) return value.map(storable);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, storable(inner)]));
}

/** The JSON answer. Raises ApiError; status 0 means that the server was not reached. */
export async function call(method, path, body, options = {}) {
  try {
    return await once(method, path, body, options);
  } catch (error) {
    if (error.code !== "csrf") throw error;
    meta().content = (await once("GET", "/api/me", undefined, {})).csrf; // logged in again in another tab: a new session
    return once(method, path, body, options);
  }
}

/** Sends a last word while the page closes, through the page's worker where there is one. Nobody waits for the answer. */
export function leave(path, body) {
  const worker = navigator.serviceWorker?.controller;
  const headers = { Accept: "application/json", "Content-Type": "application/json", "X-Harken-CSRF": meta()?.content ?? "" };
  if (worker) worker.postMessage({ path: at(path), headers, body: JSON.stringify(body) });
  else call("POST", path, body, { keepalive: true }).catch(() => {});
}

async function once(method, path, body, { type = "application/json", keepalive = false }) {
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-Harken-CSRF"] = meta()?.content ?? "";
  if (body !== undefined) headers["Content-Type"] = type;
  let response;
  try {
    const sent = body === undefined || type !== "application/json" ? body : JSON.stringify(storable(body));
    const survives = keepalive && (sent?.length ?? 0) < KEEPALIVE_CHARS;
    response = await fetch(at(path), { method, headers, body: sent, keepalive: survives, credentials: "same-origin" });
  } catch {
    throw new ApiError(0, {
      code: "offline",
      message: "The server was not reached.",
      hint: "Your answers wait here and go out by themselves.",
    });
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer;
  const wait = Number(response.headers.get("Retry-After"));
  throw new ApiError(response.ok ? 500 : response.status, answer?.error, wait > 0 ? wait : null);
}

/** What the server put into the page for a script: <script type="application/json" id="data">. */
export const pageData = () => JSON.parse(document.getElementById("data").textContent);
