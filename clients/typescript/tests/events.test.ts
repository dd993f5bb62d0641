/** Server-sent events are read right wherever the network cuts them. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Rheostat } from "rheostat";
import { begin, event, LAST, piece, RECEIPT, scripted } from "./scripted.js";

/** A fetch whose answer is this text, cut into pieces of this many bytes. */
function cutInto(size: number, text: string): typeof fetch {
  const bytes = new TextEncoder().encode(text);
  return async () =>
    new Response(
      new ReadableStream({
        start(controller) {
          for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.subarray(at, at + size));
          controller.close();
        },
      }),
    );
}

async function read(fetch: typeof globalThis.fetch): Promise<string[]> {
  const stream = new Rheostat({ model: "demo", fetch }).stream("Hello");
  const pieces = [];
  for await (const text of stream) pieces.push(text);
  assert.deepEqual(stream.receipt, RECEIPT);
  assert.equal(stream.text, pieces.join(""));
  return pieces;
}

const WRITTEN = ["für ", "Käfer 🪲", " und 漢字"];
const STREAM = ": a comment\n\n" + WRITTEN.map(piece).join("") + LAST;

for (const [name, lineEnd] of Object.entries({ "line feeds": "\n", "carriage returns": "\r", both: "\r\n" })) {
  test(`events cut after every byte, and every other number of them, with ${name}`, async () => {
    const text = STREAM.replaceAll("\n", lineEnd);
    for (const size of [1, 2, 3, 5, 7, 64, 100_000]) {
      assert.deepEqual(await read(cutInto(size, text)), WRITTEN, `${size} bytes`);
    }
  });
}

test("an event of several data lines is one wherever it is cut, and other fields are passed over", async () => {
  const spread = 'event: chunk\nid: 4\ndata: {"choices": [{"index": 0,\ndata:  "delta": {"content": "a"}}]}\n\n';
  for (const lineEnd of ["\n", "\r", "\r\n"]) {
    const text = (spread + LAST).replaceAll("\n", lineEnd);
    for (const size of [1, 4, 1000]) assert.deepEqual(await read(cutInto(size, text)), ["a"]);
  }
});

test("a byte order mark at the beginning is no part of an event", async () => {
  assert.deepEqual(await read(cutInto(2, "\ufeff" + piece("a") + LAST)), ["a"]);
});

test("pieces come as they are sent, not when all are there", async (t) => {
  let goOn = (): void => undefined;
  const server = await scripted(t, async (response) => {
    begin(response);
    response.write(piece("first"));
    await new Promise<void>((resolve) => (goOn = resolve));
    response.end(piece("second") + LAST);
  });
  const pieces = [];
  for await (const text of new Rheostat({ baseUrl: server.url, model: "demo" }).stream("Hello")) {
    pieces.push(text);
    goOn();
  }
  assert.deepEqual(pieces, ["first", "second"]);
});

test("usage, model, reason and request id are read along the way", async (t) => {
  const usage = { prompt_tokens: 3, completion_tokens: 1, total_tokens: 4 };
  const server = await scripted(t, (response) => {
    begin(response);
    const last = event({ model: "demo", choices: [{ index: 0, delta: {}, finish_reason: "length" }] });
    response.end(piece("a") + last + event({ choices: [], usage }) + LAST);
  });
  const stream = new Rheostat({ baseUrl: server.url, model: "demo" }).stream("Hello");
  for await (const _ of stream);
  const { finishReason, model, requestId, text } = stream;
  assert.deepEqual([text, finishReason, model, requestId], ["a", "length", "demo", "request-7"]);
  assert.deepEqual(stream.usage, usage);
  assert.deepEqual(server.sent[0]?.body.stream_options, { include_usage: true });
});

test("a stream that was read to its end leaves its connection for the next", async (t) => {
  const server = await scripted(t, (response) => {
    begin(response);
    response.write(piece("a") + LAST);
    setTimeout(() => response.end(), 20);
  });
  const client = new Rheostat({ baseUrl: server.url, model: "demo" });
  for (let nth = 0; nth < 6; nth++) for await (const _ of client.stream("Hello"));
  assert.equal(server.sent.length, 6);
  assert(server.connections <= 2, `${server.connections} connections`); // one may not be free yet when the next is needed
});

test("a server that never ends its response after [DONE] holds up nothing", async (t) => {
  const server = await scripted(t, (response) => {
    begin(response);
    response.write(piece("a") + LAST);
  });
  for await (const _ of new Rheostat({ baseUrl: server.url, model: "demo" }).stream("Hello"));
  await server.hungUp;
});
