// Asks for the curves every two seconds, and says when the runs or the server stop.
const curves = document.querySelector("#curves");
const status = document.querySelector("#status");
const reader = window.matchMedia("(prefers-reduced-motion: reduce)").matches ? 10000 : 2000;

async function refresh() {
  try {
    const reply = await fetch("/curves", { cache: "no-store" });
    if (!reply.ok) throw new Error(String(reply.status));
    curves.innerHTML = await reply.text(); // made by report/curves.py, every text in it escaped
    status.textContent = reply.headers.get("x-status");
  } catch {
    status.textContent = "The server does not answer: is harken watch still running?";
  }
  setTimeout(refresh, reader);
}
refresh();
