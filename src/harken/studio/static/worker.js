// Lets the labeling page be opened without a connection: the server first, what offline.js kept where it is not reached.
// Requests to the API pass by: answers wait in the outbox, tasks in the queue.

const CACHE = "harken";

self.addEventListener("install", (event) => {
  self.skipWaiting();
  // Where the browser can, the API is reached without this worker: a request sent while the page closes must not wait for it.
  event.addRoutes?.({ condition: { urlPattern: "*/api/*" }, source: "network" })?.catch?.(() => {});
});
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

async function kept(request) {
  return (await (await caches.open(CACHE)).match(request)) ?? Response.error();
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin || pathname.includes("/api/")) return;
  event.respondWith(fetch(request).catch(() => kept(request)));
});

// A page that closes hands over what it still has to send: its own request may be dropped on the way through this worker.
self.addEventListener("message", (event) => {
  const { path, headers, body } = event.data ?? {};
  if (typeof path !== "string" || new URL(path, location.href).origin !== location.origin) return;
  event.waitUntil(fetch(path, { method: "POST", headers, body, credentials: "same-origin" }).catch(() => {}));
});
