// Answers on their way. Each is written to this browser before the next item is shown and removed only when the server
// said it is stored; its client id makes a repeated sending store once (F1, F21).

import { ApiError, call } from "./api.js";

const LONGEST_WAIT = 30; // seconds between attempts

export class Outbox {
  /** `owner` keeps one person's answers from going out under another's name. `prepare(entry, last)` may add to the body just
   *  before sending; `events` has stored(entry, answer), refused(entry, error) and changed(). */
  constructor(owner, { prepare = (entry) => entry.body, storage = localStorage, ...events }) {
    Object.assign(this, { prefix: `harken:${owner}:`, prepare, storage, events });
    this.loose = new Map(); // what the browser's storage refused to take: kept while the page lives
    this.sending = null;
    this.running = null;
    this.error = null;
    this.timer = null;
    this.failures = 0;
  }

  read(kind) {
    const mine = (key) => key.startsWith(this.prefix + kind);
    const kept = Object.keys(this.storage)
      .filter(mine)
      .map((key) => JSON.parse(this.storage.getItem(key)))
      .filter(Boolean); // another tab may have sent it just now
    const loose = [...this.loose].filter(([key]) => mine(key)).map(([, entry]) => entry);
    return [...kept, ...loose].sort((a, b) => a.order - b.order);
  }

  write(kind, entry) {
    const key = `${this.prefix}${kind}${entry.id}`;
    try {
      this.storage.setItem(key, JSON.stringify(entry));
      this.loose.delete(key);
    } catch {
      this.loose.set(key, entry);
    }
  }

  erase(kind, id) {
    this.loose.delete(`${this.prefix}${kind}${id}`);
    this.storage.removeItem(`${this.prefix}${kind}${id}`);
  }

  get waiting() {
    return this.read("out:");
  }
  get refused() {
    return this.read("refused:");
  }
  get unsaved() {
    return this.loose.size > 0;
  }

  /** Takes a request {id, path, body, …}; it is durable when this returns. */
  add(entry) {
    this.order = Math.max(Date.now(), (this.order ?? 0) + 1);
    this.write("out:", { ...entry, method: "POST", attempts: 0, order: this.order });
    this.events.changed?.();
    this.flush();
  }

  /** Takes back a request that was never sent; false when it may have reached the server. */
  cancel(id) {
    const entry = this.waiting.find((e) => e.id === id);
    if (!entry || entry.attempts > 0 || this.sending === id) return false;
    this.erase("out:", id);
    this.events.changed?.();
    return true;
  }

  dismiss(id) {
    this.erase("refused:", id);
    this.events.changed?.();
  }

  /** Sends what waits, in order, one at a time; resolves when nothing waits or the server is not reached. */
  flush() {
    clearTimeout(this.timer);
    this.running ??= this.drain().finally(() => {
      this.running = null;
      this.events.changed?.();
      if (!this.error && this.waiting.length) this.flush(); // something came in while the last answer was being read
    });
    return this.running;
  }

  async drain() {
    for (let queue = this.waiting; queue.length; queue = this.waiting) {
      const entry = queue[0];
      this.sending = entry.id;
      this.write("out:", { ...entry, attempts: entry.attempts + 1 });
      try {
        const answer = await call(entry.method, entry.path, this.prepare(entry, queue.length === 1), { keepalive: true });
        this.erase("out:", entry.id);
        this.failures = 0;
        this.error = null;
        this.events.stored?.(entry, answer);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        this.error = error;
        if (error.passing) return this.later(error.retryAfter);
        this.write("refused:", { ...entry, error: { code: error.code, message: error.message, hint: error.hint } });
        this.erase("out:", entry.id);
        this.events.refused?.(entry, error);
      } finally {
        this.sending = null;
      }
    }
    return undefined;
  }

  later(seconds) {
    this.failures += 1;
    const wait = seconds ?? Math.min(LONGEST_WAIT, 2 ** Math.min(this.failures, 5) / 2);
    this.timer = setTimeout(() => this.flush(), wait * 1000);
  }
}
