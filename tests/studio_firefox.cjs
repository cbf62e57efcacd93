// Drives Firefox by the W3C's WebDriver BiDi (what Debian's Firefox speaks; Playwright's protocol needs its own build).
// node studio_firefox.cjs FIREFOX PROFILE URL: answers one comparison by keyboard; prints what it saw as JSON.
const { spawn } = require("node:child_process");
const [firefox, profile, url] = process.argv.slice(2);
const child = spawn(firefox, ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port=0", "about:blank"]);
const faults = [];
let ws, sent = 0;
const waiting = new Map();

function call(method, params = {}) {
  const id = ++sent;
  ws.send(JSON.stringify({ id, method, params }));
  return new Promise((done, failed) => waiting.set(id, { done, failed }));
}

function heard({ data }) {
  const message = JSON.parse(data);
  if (message.type === "event") {
    if (message.method === "log.entryAdded" && ["error", "warn"].includes(message.params.level)) faults.push(message.params.text);
    return;
  }
  const { done, failed } = waiting.get(message.id);
  message.type === "error" ? failed(new Error(`${message.error}: ${message.message}`)) : done(message.result);
}

async function run(address) {
  ws = new WebSocket(`${address}/session`);
  ws.onmessage = heard;
  await new Promise((done) => (ws.onopen = done));
  const { capabilities } = await call("session.new", { capabilities: {} });
  await call("session.subscribe", { events: ["log.entryAdded"] });
  const { contexts } = await call("browsingContext.getTree");
  const context = contexts[0].context;
  const ask = async (expression) => (await call("script.evaluate", { expression, target: { context }, awaitPromise: true })).result.value;
  const until = async (expression) => {
    for (const end = Date.now() + 20000; !(await ask(`!!(${expression})`)); await new Promise((next) => setTimeout(next, 30)))
      if (Date.now() > end) throw new Error(`not within 20 s: ${expression}; ${await ask("document.body.innerText")}`);
  };
  const press = (value) => call("input.performActions", { context, actions: [{ type: "key", id: "keys", actions: [
    { type: "keyDown", value }, { type: "keyUp", value }] }] });
  await call("browsingContext.navigate", { context, url, wait: "complete" });
  await until("document.querySelector('#guide[open]')");
  await press("\uE00C"); // Escape
  await until("!document.querySelector('dialog[open]') && document.activeElement.closest('.task')");
  await press("1");
  const chosen = await ask("document.querySelector('[role=radio][aria-checked=true]').getAttribute('aria-label')");
  await press("\uE007"); // Enter
  await until("[...document.querySelectorAll('.message')].some((one) => one.innerText.includes('Stored:'))");
  const wide = await ask("document.documentElement.scrollWidth <= innerWidth");
  console.log(JSON.stringify({ version: capabilities.browserVersion, chosen, wide, done: await ask("document.querySelector('#done').innerText"), faults }));
}

let started = false, words = "";
child.stderr.on("data", (data) => {
  words += data;
  const found = /WebDriver BiDi listening on (ws:\S+)/.exec(words);
  if (found && !started) {
    started = true;
    run(found[1]).catch((error) => { console.error(error); process.exitCode = 1; }).finally(() => { ws?.close(); child.kill(); });
  }
});
child.on("exit", () => started || (console.error(words), process.exit(1)));
