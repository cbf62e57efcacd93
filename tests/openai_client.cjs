// OpenAI's JavaScript client against a server of ours: node openai_client.cjs ADDRESS KEY. Prints what came, as one JSON object.
const OpenAI = require("openai").default;

async function main(baseURL, apiKey) {
  const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  const asked = { model: "toy", messages: [{ role: "user", content: "Hi" }], max_tokens: 6, n: 2, seed: 1 };
  const whole = await client.chat.completions.create({ ...asked, logprobs: true, top_logprobs: 2 });
  const found = {
    texts: whole.choices.map((c) => c.message.content),
    usage: whole.usage,
    tops: whole.choices[0].logprobs.content[0].top_logprobs.length,
  };

  const streamed = ["", ""];
  for await (const chunk of await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } })) {
    for (const c of chunk.choices) streamed[c.index] += c.delta.content ?? "";
    if (chunk.usage) found.streamed_usage = chunk.usage;
  }
  found.streamed = streamed;

  const runner = client.chat.completions.stream({ ...asked, n: 1 }); // the client's own reading of a stream
  found.runner = (await runner.finalChatCompletion()).choices[0].message.content;

  found.completion = (await client.completions.create({ model: "toy", prompt: "ab", max_tokens: 3, seed: 1, echo: true })).choices[0].text;
  found.models = (await client.models.list()).data.map((m) => m.id);

  const refused = {};
  for (const [name, call] of Object.entries({
    tools: () => client.chat.completions.create({ ...asked, tools: [{ type: "function", function: { name: "f", parameters: {} } }] }),
    n: () => client.chat.completions.create({ ...asked, n: 0 }),
    model: () => client.chat.completions.create({ ...asked, model: "other" }),
    key: () => new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 }).models.list(),
  })) {
    try { await call(); } catch (e) { refused[name] = [e.constructor.name, e.status, e.param]; }
  }
  found.refused = refused;

  const leaving = await client.chat.completions.create({ ...asked, n: 1, max_tokens: 400, stream: true });
  for await (const _ of leaving) { leaving.controller.abort(); break; }
  found.left = leaving.controller.signal.aborted;
  console.log(JSON.stringify(found));
}

main(...process.argv.slice(2)).catch((e) => { console.error(e); process.exit(1); });
