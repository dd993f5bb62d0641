/** How a stream ends: at its end, by leaving the loop, by a signal, by an error, or broken. */

import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { ConnectionFailed, NoAnswerInTime, Rheostat, RheostatError, StreamBroken, StreamFailed } from "rheostat";
import { begin, event, LAST, piece, scripted, type Script, type Scripted } from "./scripted.js";

async function served(t: TestContext, script: Script, timeout?: number): Promise<[Rheostat, Scripted]> {
  const server = await scripted(t, script);
  return [new Rheostat({ baseUrl: server.url, model: "demo", timeout }), server];
}

async function drain(stream: AsyncIterable<string>): Promise<void> {
  for await (const _ of stream);
}

const ENDLESS: Script = (response) => {
  begin(response);
  const timer = setInterval(() => response.write(piece("more ")), 5);
  response.on("close", () => clearInterval(timer));
};

test("leaving the loop closes the connection", async (t) => {
  const [client, server] = await served(t, ENDLESS);
  for await (const _ of client.stream("Hello")) break;
  await server.hungUp;
});

test("an error thrown in the loop closes the connection", async (t) => {
  const [client, server] = await served(t, ENDLESS);
  const failing = async (): Promise<void> => {
    for await (const _ of client.stream("Hello")) throw new RangeError("mine");
  };
  await assert.rejects(failing, RangeError);
  await server.hungUp;
});

test("a signal ends a stream and closes its connection, and its reason is thrown", async (t) => {
  const [client, server] = await served(t, ENDLESS);
  const controller = new AbortController();
  const reading = async (): Promise<void> => {
    for await (const _ of client.stream("Hello", { signal: controller.signal })) controller.abort();
  };
  await assert.rejects(reading, { name: "AbortError" });
  await server.hungUp;
});

test("a signal ends a stream that waits for its next piece", async (t) => {
  const [client, server] = await served(t, (response) => {
    begin(response);
    response.write(piece("one"));
  });
  const controller = new AbortController();
  const pieces = client.stream("Hello", { signal: controller.signal })[Symbol.asyncIterator]();
  assert.equal((await pieces.next()).value, "one");
  const waiting = pieces.next();
  controller.abort(new Error("enough"));
  await assert.rejects(waiting, /enough/);
  await server.hungUp;
});

test("a signal that was aborted before lets nothing be asked", async (t) => {
  const [client, server] = await served(t, ENDLESS);
  await assert.rejects(drain(client.stream("Hello", { signal: AbortSignal.abort() })), { name: "AbortError" });
  await assert.rejects(client.chat("Hello", { signal: AbortSignal.abort() }), { name: "AbortError" });
  assert.equal(server.sent.length, 0);
});

test("nothing is asked before the first piece is read", async (t) => {
  const [client, server] = await served(t, ENDLESS);
  client.stream("Hello");
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(server.sent.length, 0);
});

test("a stream without [DONE] is broken, even where its receipt was there", async (t) => {
  const [client] = await served(t, (response) => {
    begin(response);
    response.end(piece("half") + LAST.replace("data: [DONE]\n\n", ""));
  });
  await assert.rejects(drain(client.stream("Hello")), (error) => {
    assert(error instanceof StreamBroken);
    assert.match(error.message, /\[DONE\]/);
    assert.equal(error.requestId, "request-7");
    return true;
  });
});

test("a connection that is cut after the first byte is a broken stream, and nothing is asked again", async (t) => {
  const [client, server] = await served(t, (response) => {
    begin(response);
    response.write(piece("half"));
    setTimeout(() => response.destroy(), 20);
  });
  const stream = client.stream("Hello");
  await assert.rejects(drain(stream), StreamBroken);
  assert.equal(stream.text, "half");
  assert.equal(server.sent.length, 1);
});

test("an error event throws what it says", async (t) => {
  const error = { message: "the engine died", type: "engine_unavailable", param: null, code: "engine_unavailable" };
  const [client, server] = await served(t, (response) => {
    begin(response);
    response.end(piece("half") + event({ error }) + "data: [DONE]\n\n");
  });
  await assert.rejects(drain(client.stream("Hello")), (thrown) => {
    assert(thrown instanceof StreamFailed);
    assert.deepEqual([thrown.message, thrown.code, thrown.status], ["the engine died", "engine_unavailable", null]);
    return true;
  });
  assert.equal(server.sent.length, 1);
});

for (const [name, body] of Object.entries({
  "no JSON": "data: {half\n\n",
  "no object": "data: 5\n\n",
  "no receipt": piece("a") + "data: [DONE]\n\n",
  "a receipt of another form": event({ choices: [], control: 5 }) + "data: [DONE]\n\n",
  "choices of another form": event({ choices: 5 }) + LAST,
  "text of another form": event({ choices: [{ delta: { content: 5 } }] }) + LAST,
})) {
  test(`a stream with ${name} in it is broken`, async (t) => {
    const [client] = await served(t, (response) => {
      begin(response);
      response.end(body);
    });
    await assert.rejects(drain(client.stream("Hello")), StreamBroken);
  });
}

test("a stream that falls silent is given up", async (t) => {
  const [client, server] = await served(
    t,
    (response) => {
      begin(response);
      response.write(piece("one"));
    },
    400,
  );
  await assert.rejects(drain(client.stream("Hello")), NoAnswerInTime);
  await server.hungUp;
});

test("the time that the reader takes is not the server's silence", async (t) => {
  const [client] = await served(
    t,
    (response) => {
      begin(response);
      response.write(piece("one"));
      setTimeout(() => response.end(LAST), 20);
    },
    800,
  );
  for await (const _ of client.stream("Hello")) await new Promise((resolve) => setTimeout(resolve, 1000));
});

test("there is no receipt before the end, and a stream is read once", async (t) => {
  const [client] = await served(t, (response) => {
    begin(response);
    response.end(piece("a") + LAST);
  });
  const stream = client.stream("Hello");
  assert.throws(() => stream.receipt, RheostatError);
  await drain(stream);
  assert.equal(stream.receipt.mode, "prompt");
  await assert.rejects(drain(stream), /read already/);
});

for (const status of [200, 503]) {
  test(`an answer with status ${status} that is cut off is not asked for again, and its request is told`, async (t) => {
    const [client, server] = await served(t, (response) => {
      response.writeHead(status, { "Content-Length": "100", "X-Request-ID": "request-7" });
      response.write("{");
      setTimeout(() => response.destroy(), 10);
    });
    await assert.rejects(client.chat("Hello"), (error) => {
      assert(error instanceof ConnectionFailed);
      assert.deepEqual([error.status, error.requestId], [status, "request-7"]);
      return true;
    });
    assert.equal(server.sent.length, 1);
  });
}
