// Unfinished answers: in this browser at once, on the server within two seconds.

import { call } from "./api.js";
import { t } from "./language.js";

const BROWSER_MS = 250;
const SERVER_MS = 2000;
const OLD_MS = 14 * 24 * 3600 * 1000;

export class Drafts {
  /** `told(words)` is called when another tab holds the same item. */
  constructor(owner, told) {
    this.prefix = `harken:${owner}:draft:`;
    this.told = told;
    this.timers = new Map();
    for (const key of Object.keys(localStorage).filter((k) => k.startsWith(this.prefix))) {
      if (Date.now() - (JSON.parse(localStorage.getItem(key)).at ?? 0) > OLD_MS) localStorage.removeItem(key);
    }
  }

  /** The newer of what this browser and the server know about a task, or null. */
  of(task) {
    const kept = JSON.parse(localStorage.getItem(this.prefix + task.assignment) ?? "null");
    if (!kept) return task.draft;
    return task.draft?.at > kept.at ? task.draft : kept;
  }

  /** `make()` is called when it is time to look at the form, not at every key. */
  changed(task, make) {
    clearTimeout(this.timers.get("browser"));
    this.timers.set(
      "browser",
      setTimeout(() => this.keep(task, make()), BROWSER_MS),
    );
    if (this.timers.has("server")) return;
    this.timers.set(
      "server",
      setTimeout(() => {
        this.timers.delete("server");
        this.send(task, make());
      }, SERVER_MS),
    );
  }

  keep(task, draft) {
    const kept = JSON.stringify({ ...draft, at: Date.now() });
    try {
      localStorage.setItem(this.prefix + task.assignment, kept);
    } catch {
      this.send(task, draft); // this browser's storage is full: the server has it at least
    }
  }

  async send(task, draft, again = true) {
    try {
      const body = { draft: { ...draft, at: Date.now() }, version: task.draft_version };
      task.draft_version = (await call("PUT", `/api/assignments/${task.assignment}/draft`, body)).version;
    } catch (error) {
      if (error.code !== "draft_conflict" || !again) return; // unreachable or closed: the browser's copy remains
      task.draft_version = error.current.version;
      this.told(t("This item is open in another tab too. The last change wins."));
      await this.send(task, draft, false);
    }
  }

  /** Nothing more is to be saved of this task: it was sent, or another is on screen. */
  stop() {
    for (const timer of this.timers.values()) clearTimeout(timer);
    this.timers.clear();
  }

  forget(task) {
    this.stop();
    localStorage.removeItem(this.prefix + task.assignment);
  }
}
