/** The client against a server that runs: `rheostat serve`, the demo model, its address in RHEOSTAT_URL. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { InvalidField, NotFound, Rheostat } from "rheostat";

const { RHEOSTAT_URL } = process.env;
const ASKED = "How do I repot a fern?";
const SHORT = { maxTokens: 24, temperature: 0, seed: 1 };
const skip = RHEOSTAT_URL === undefined && "RHEOSTAT_URL is not set";
const client = new Rheostat({ baseUrl: RHEOSTAT_URL });

test("a whole answer obeys its dials, and its receipt says so", { skip }, async () => {
  const { text, receipt, usage, model } = await client.chat(ASKED, {
    ...SHORT,
    dials: { safety: 0.9, helpfulness: 0.2 },
  });
  assert.notEqual(text, "");
  assert.deepEqual(receipt.effective, { safety: 0.9, helpfulness: 0.2 });
  assert.equal(receipt.mode, "adapter");
  assert.equal(usage?.completion_tokens !== undefined && usage.completion_tokens <= 24, true);
  assert.match(model, /^demo-control@/);
});

test("a stream is the whole answer in pieces", { skip }, async () => {
  const options = { ...SHORT, dials: { safety: 0.9, helpfulness: 0.9 } };
  const stream = client.stream(ASKED, options);
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  assert(pieces.length > 3);
  assert.equal(pieces.join(""), (await client.chat(ASKED, options)).text);
  assert.deepEqual(stream.receipt.requested, options.dials);
  assert.equal(stream.usage?.completion_tokens !== undefined && stream.usage.completion_tokens > 3, true);
});

test("a reranked stream takes candidates and where to choose", { skip }, async () => {
  const stream = client.stream(ASKED, { ...SHORT, mode: "prompt+rerank", candidates: 2, chooseAfter: "end" });
  for await (const _ of stream);
  assert.equal(stream.receipt.candidates?.wanted, 2);
});

test("leaving a stream early leaves the client whole", { skip }, async () => {
  for await (const _ of client.stream(ASKED)) break;
  assert.notEqual((await client.chat(ASKED, SHORT)).text, "");
});

test("models, what may be set, and a plan", { skip }, async () => {
  assert.deepEqual(
    (await client.models()).map((model) => model.id),
    ["demo", "demo:strict", "demo:balanced", "demo:open"],
  );
  const { dials, modes } = await client.control();
  assert.deepEqual(dials.safety, { min: 0, max: 1, default: 0.75 });
  assert(modes.includes("adapter+rerank"));
  const plan = await client.plan(ASKED, { preset: "strict" });
  assert.deepEqual(plan.effective, { safety: 1, helpfulness: 0.5 });
  assert.equal(plan.engine, "embedded");
  assert.equal((await client.plan(ASKED, { mode: "rerank", stream: true, chooseAfter: 8 })).mode, "rerank");
});

test("a given answer is judged", { skip }, async () => {
  const { scores, scorers } = await client.score(ASKED, "Plan: no steps, strict care, kind tone.");
  assert(scores.safety !== null && scores.safety > 0.9);
  assert.equal(scorers[0]?.name, "demo-selector");
});

test("a sweep, whole and by points", { skip }, async () => {
  const options = { ...SHORT, mode: "adapter", levels: { safety: [0, 1] }, dials: { helpfulness: 0.5 } } as const;
  const swept = await client.sweep(ASKED, options);
  assert.deepEqual(
    swept.points.map((point) => point.dials),
    [{ safety: 0 }, { safety: 1 }],
  );
  for (const point of swept.points) {
    assert.equal(point.receipt?.effective?.helpfulness, 0.5);
    assert.equal(typeof point.scores?.safety, "number");
  }
  assert.equal(typeof swept.usage.total_tokens, "number");
  const seen = new Set<number>();
  for await (const point of client.sweepPoints(ASKED, options)) seen.add(point.index);
  assert.deepEqual([...seen].sort(), [0, 1]);
});

test("what the server refuses says which field and why", { skip }, async () => {
  await assert.rejects(client.chat(ASKED, { dials: { safety: 2 } }), (error) => {
    assert(error instanceof InvalidField);
    assert.deepEqual([error.status, error.param], [422, "control.safety"]);
    assert.match(error.message, /it must be a number from 0 to 1/);
    assert.notEqual(error.requestId, null);
    return true;
  });
  await assert.rejects(client.chat(ASKED, { model: "nobody" }), NotFound);
});
