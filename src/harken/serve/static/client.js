// Requests to the server: streamed answers, feedback, the key.

const KEY = "harken:key";

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => sessionStorage.setItem(KEY, text),
};

export class Refused extends Error {
  constructor(status, { message = "The server failed.", code = null } = {}, wait = null) {
    super(message);
    Object.assign(this, { status, code, wait });
  }
}

async function request(method, path, body, more = {}) {
  const headers = { Accept: "application/json", ...more.headers };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal: more.signal, keepalive: more.keepalive });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { message: "The server was not reached. Try again." });
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  throw new Refused(response.status, answer?.error ?? {}, Number(response.headers.get("Retry-After")) || null);
}

/** Streams an answer: `hear(choice, text)` for each part; returns {id, tokens, ends} (tokens: a choice's right to be judged). */
export async function stream(body, hear, signal) {
  const response = await request("POST", "/v1/chat/completions", { ...body, stream: true }, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const result = { id: "", tokens: [], ends: [] };
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) take(line.slice(6), result, hear);
  }
  if (!result.ends.length) throw new Refused(0, { message: "The answer broke off. Try again." });
  return result;
}

function take(data, result, hear) {
  if (data === "[DONE]") return;
  const chunk = JSON.parse(data);
  if (chunk.error) throw new Refused(500, chunk.error);
  result.id = chunk.id;
  for (const { index, delta, finish_reason: end } of chunk.choices) {
    if (delta.content) hear(index, delta.content);
    if (end) result.ends[index] = end;
  }
  if (chunk.harken) result.tokens = chunk.harken.feedback;
}

export const feedback = async (body, more) => (await request("POST", "/v1/feedback", body, more)).json();
export const given = async () => (await request("GET", "/v1/feedback")).json();
export const takeBack = async (id) => (await request("DELETE", `/v1/feedback/${id}`)).json();
export const models = async () => (await request("GET", "/v1/models")).json();
