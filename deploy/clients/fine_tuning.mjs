// The whole story of a fine-tune over OpenAI's official Node client, unmodified: upload, create, events, chat
// with the new name, delete. See README.md. Ends with 1 at the first answer that is not as it should be.

import assert from "node:assert/strict";
import { createReadStream } from "node:fs";
import OpenAI from "openai";

const [rows, model = "base"] = process.argv.slice(2);
if (!rows) {
  console.error("usage: node fine_tuning.mjs ROWS.jsonl [MODEL]");
  process.exit(2);
}
const client = new OpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY ?? "none" });
const { jobs } = client.fineTuning;
const final = new Set(["succeeded", "failed", "cancelled"]);
const say = (...words) => console.log(...words);

async function refused(kind, call) {
  await assert.rejects(call, (error) => error instanceof kind && typeof error.message === "string");
}

async function ended(id) {
  for (;;) {
    const job = await jobs.retrieve(id);
    if (final.has(job.status)) return job;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

const file = await client.files.create({ file: createReadStream(rows), purpose: "fine-tune" });
await client.files.waitForProcessing(file.id);
say("uploaded", file.id, `${file.bytes} bytes`);

const asked = { model, training_file: file.id, metadata: { story: "node" } };
const job = await jobs.create({ ...asked, suffix: "node story" });
say("created", job.id, job.status);
const paused = await jobs.create(asked);
assert.equal((await jobs.pause(paused.id)).status, "paused");
assert.equal((await jobs.resume(paused.id)).status, "queued");
assert.equal((await jobs.cancel(paused.id)).status, "cancelled");
await refused(OpenAI.BadRequestError, jobs.cancel(paused.id));

const done = await ended(job.id);
assert.equal(done.status, "succeeded", JSON.stringify(done.error));
const events = [];
for await (const event of jobs.listEvents(job.id, { limit: 3 })) events.push(event);
assert.equal(new Set(events.map((event) => event.id)).size, events.length);
assert.match(events.at(-1).message, /Created fine-tuning job/);
say("events", events.length, "the newest:", events[0].message);
for await (const point of jobs.checkpoints.list(job.id)) say("checkpoint", point.fine_tuned_model_checkpoint);
const found = [];
for await (const one of jobs.list({ limit: 1, metadata: { story: "node" } })) found.push(one.id);
assert.ok(found.includes(job.id) && found.includes(paused.id));
say("result file:", (await (await client.files.content(done.result_files[0])).text()).split("\n")[0]);

const name = done.fine_tuned_model;
const messages = [{ role: "user", content: "Hello" }];
const answer = await client.chat.completions.create({ model: name, messages, max_tokens: 16 });
say(name, "says", JSON.stringify(answer.choices[0].message.content));
let pieces = 0;
for await (const piece of await client.chat.completions.create({ model: name, messages, max_tokens: 16, stream: true }))
  pieces += piece.choices.length;
assert.ok(pieces > 0);
const listed = [];
for await (const one of client.models.list()) listed.push(one.id);
assert.ok(listed.includes(name));
assert.equal((await client.models.retrieve(name)).id, name);

const grader = { type: "string_check", name: "same", operation: "eq", input: "{{sample.output_text}}", reference: "{{item.a}}" };
const { graders } = client.fineTuning.alpha;
assert.deepEqual((await graders.validate({ grader })).grader, grader);
assert.equal((await graders.run({ grader, model_sample: "x", item: { a: "x" } })).reward, 1);

await refused(OpenAI.BadRequestError, jobs.create({ ...asked, seed: -1 }));
await refused(OpenAI.NotFoundError, jobs.retrieve("ftjob-nothing"));
assert.equal((await client.models.delete(name)).deleted, true);
await refused(OpenAI.NotFoundError, client.models.retrieve(name));
assert.equal((await client.files.delete(file.id)).deleted, true);
say("deleted", name);
