// What the labeling page needs to open without a connection: itself and its files, in the browser's cache (worker.js
// serves them), and the tasks at hand. Browsers allow the first on https and on localhost only.

import { at } from "./api.js";

const CACHE = "harken"; // also in worker.js

/** Keeps this page and its files, and nothing else: older versions and other projects go. */
export async function keepPage() {
  if (!("serviceWorker" in navigator) || !("caches" in window)) return;
  await navigator.serviceWorker.register(at("/label/worker.js"));
  const parts = [...document.querySelectorAll("link[href], script[src]")].map((node) => node.href || node.src);
  const wanted = new Set([location.origin + location.pathname, ...parts]);
  const cache = await caches.open(CACHE);
  for (const old of await cache.keys()) if (!wanted.has(old.url)) await cache.delete(old);
  await cache.addAll([...wanted]);
}

/** Somebody logged out: the next person at this browser finds nothing. */
export const forgetPage = () => globalThis.caches?.delete(CACHE);

/** The tasks at hand, for a reload without a connection. The server remains their master: it is asked first. */
export class Tasks {
  constructor(owner, project) {
    this.key = `harken:${owner}:tasks:${project}`;
  }

  keep(tasks) {
    try {
      localStorage.setItem(this.key, JSON.stringify(tasks));
    } catch {
      localStorage.removeItem(this.key); // full: answers and drafts need the room
    }
  }

  /** The kept tasks, but for those whose answers are on their way. */
  get(except) {
    return JSON.parse(localStorage.getItem(this.key) ?? "[]").filter((t) => !except.includes(t.assignment));
  }
}
