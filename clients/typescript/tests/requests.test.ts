/** What is sent, what is tried again, and which error each refusal becomes. */

import assert from "node:assert/strict";
import { inspect } from "node:util";
import { test, type TestContext } from "node:test";
import * as rheostat from "rheostat";
import {
  answer,
  begin,
  completion,
  event,
  LAST,
  piece,
  RECEIPT,
  refuse,
  scripted,
  type Script,
  type Scripted,
} from "./scripted.js";

const {
  ApiError,
  ConnectionFailed,
  NoAnswerInTime,
  Rheostat,
  RheostatError,
  StreamBroken,
  TooManyRequests,
  Unavailable,
} = rheostat;

async function served(
  t: TestContext,
  script: Script,
  options: rheostat.Options = {},
): Promise<[rheostat.Rheostat, Scripted]> {
  const server = await scripted(t, script);
  return [new Rheostat({ baseUrl: server.url, model: "demo", ...options }), server];
}

const ANSWERS: Script = (response) => answer(response, completion("Hi."));

test("an answer is told with its receipt", async (t) => {
  const [client] = await served(t, ANSWERS);
  const { text, receipt, finishReason, model, requestId } = await client.chat("Hello");
  assert.deepEqual([text, finishReason, model, requestId], ["Hi.", "stop", "demo", "request-7"]);
  assert.deepEqual(receipt, RECEIPT);
});

test("every option stands where the server looks for it, and other fields go as they are", async (t) => {
  const [client, server] = await served(t, ANSWERS, { apiKey: "sesame" });
  await client.chat([{ role: "user", content: "Hello" }], {
    dials: { safety: 0.9, helpfulness: 0.2 },
    mode: "adapter+rerank",
    model: "other",
    adapter: "control",
    candidates: 4,
    earlyStop: false,
    maxTokens: 60,
    temperature: 0.5,
    seed: 7,
    top_p: 0.8,
  });
  const [sent] = server.sent;
  assert.equal(sent?.path, "/v1/chat/completions");
  assert.equal(sent?.headers.authorization, "Bearer sesame");
  assert.equal(sent?.headers["content-type"], "application/json");
  assert.deepEqual(sent?.body, {
    model: "other",
    messages: [{ role: "user", content: "Hello" }],
    max_tokens: 60,
    temperature: 0.5,
    seed: 7,
    top_p: 0.8,
    control: {
      safety: 0.9,
      helpfulness: 0.2,
      mode: "adapter+rerank",
      adapter: "control",
      candidates: 4,
      early_stop: false,
    },
  });
});

test("the client's own dials and mode hold where a request says nothing", async (t) => {
  const [client, server] = await served(t, ANSWERS, { dials: { safety: 0.9, helpfulness: 0.4 }, mode: "prompt" });
  await client.chat("Hello");
  await client.chat("Hello", { dials: { helpfulness: 1, safety: undefined }, mode: "off" });
  await client.chat("Hello", { preset: "strict" });
  await client.chat("Hello", { preset: "strict", mode: "off" });
  await client.withDials({ safety: 0.2 }).chat("Hello");
  await client.withDials({}, { mode: "adapter" }).chat("Hello");
  assert.deepEqual(
    server.sent.map((sent) => sent.body.control),
    [
      { safety: 0.9, helpfulness: 0.4, mode: "prompt" },
      { safety: 0.9, helpfulness: 1, mode: "off" },
      { preset: "strict" },
      { mode: "off", preset: "strict" },
      { safety: 0.2, helpfulness: 0.4, mode: "prompt" },
      { safety: 0.9, helpfulness: 0.4, mode: "adapter" },
    ],
  );
  assert.deepEqual(client.dials, { safety: 0.9, helpfulness: 0.4 });
});

test("without a model the server is asked for its first one, once", async (t) => {
  const [client, server] = await served(
    t,
    (response, sent) =>
      answer(
        response,
        sent.method === "GET" ? { object: "list", data: [{ id: "base" }, { id: "base:strict" }] } : completion(""),
      ),
    { model: undefined },
  );
  await client.chat("Hello");
  await client.chat("Hello");
  await client.withDials({ safety: 1 }).chat("Hello");
  assert.deepEqual(
    server.sent.map((sent) => sent.path),
    ["/v1/models", ...Array(3).fill("/v1/chat/completions")],
  );
  assert.equal(server.sent[1]?.body.model, "base");
});

for (const suffix of ["", "/", "/v1", "/v1/"]) {
  test(`a base address may end with '${suffix}'`, async (t) => {
    const server = await scripted(t, ANSWERS);
    await new Rheostat({ baseUrl: server.url + suffix, model: "demo" }).chat("Hello");
    assert.equal(server.sent[0]?.path, "/v1/chat/completions");
  });
}

test("a misspelt option, and a field that is the client's to write, are refused before anything is sent", async (t) => {
  const [client, server] = await served(t, ANSWERS);
  await assert.rejects(client.chat("Hello", { maxTokenz: 5 }), /maxTokenz is no option/);
  await assert.rejects(client.chat("Hello", { control: {} }), /use dials/);
  await assert.rejects(client.chat("Hello", { stream: true }), /use stream\(\)/);
  assert.throws(() => client.stream("Hello", { n: 2 }), /use chat\(\)/);
  assert.equal(server.sent.length, 0);
});

test("settings out of range are refused", () => {
  assert.throws(() => new Rheostat({ timeout: 0 }), /timeout is 0; it must be a number from 1/);
  assert.throws(() => new Rheostat({ timeout: Infinity }), RangeError);
  assert.throws(() => new Rheostat({ retries: -1 }), /retries is -1/);
});

test("the key is not shown with the client", () => {
  assert.doesNotMatch(inspect(new Rheostat({ apiKey: "sesame" }), { depth: 9, showHidden: true }), /sesame/);
});

test("blanks about a key are dropped, and a blank one is none", async (t) => {
  const server = await scripted(t, ANSWERS);
  for (const apiKey of [" sesame\n", " \n"])
    await new Rheostat({ baseUrl: server.url, model: "demo", apiKey }).chat("Hello");
  assert.deepEqual(
    server.sent.map((sent) => sent.headers.authorization),
    ["Bearer sesame", undefined],
  );
});

test("a key that no header can carry is refused at once, by an error that does not hold it", () => {
  for (const apiKey of ["open sesame", "sesame\nopen", "sésame"]) {
    assert.throws(
      () => new Rheostat({ apiKey }),
      (error) =>
        error instanceof TypeError && /apiKey/.test(error.message) && !/s[eé]same/.test(inspect(error.message)),
    );
  }
});

for (const [status, name] of [
  [400, "BadRequest"],
  [401, "Unauthorized"],
  [403, "NotPermitted"],
  [404, "NotFound"],
  [413, "BadRequest"],
  [415, "BadRequest"],
  [422, "InvalidField"],
  [429, "TooManyRequests"],
  [500, "ApiError"],
  [501, "NoScorers"],
  [502, "EngineFailed"],
  [503, "Unavailable"],
  [504, "ApiError"],
] as const) {
  test(`${status} is ${name}, with all that the server says`, async (t) => {
    const [client, server] = await served(t, (response) => refuse(response, status), { retries: 0 });
    await assert.rejects(client.chat("Hello"), (error) => {
      assert(error instanceof rheostat[name] && error instanceof RheostatError);
      const { message, type, code, param, requestId } = error;
      assert.deepEqual(
        [error.name, error.status, message, type, code, param, requestId],
        [name, status, `refused with ${status}`, "kind", "why", "control.safety", "request-7"],
      );
      return true;
    });
    assert.equal(server.sent.length, 1);
  });
}

test("a proxy's page is an error too", async (t) => {
  const [client] = await served(t, (response) => response.writeHead(504).end("<h1>Gateway Timeout</h1>"));
  await assert.rejects(client.chat("Hello"), (error) => {
    assert(error instanceof ApiError);
    assert.deepEqual([error.message, error.code], ["HTTP 504: <h1>Gateway Timeout</h1>", null]);
    return true;
  });
});

test("an answer that is no JSON, or bears no receipt, is refused", async (t) => {
  const [client] = await served(t, (response, _, nth) => {
    if (nth === 1) response.end("<p>Hello</p>");
    else answer(response, { ...completion("Hi."), control: undefined });
  });
  await assert.rejects(client.chat("Hello"), /no JSON: <p>Hello/);
  await assert.rejects(client.chat("Hello"), /bears no receipt/);
});

for (const [route, ask] of Object.entries({
  chat: (client: rheostat.Rheostat) => client.chat("Hello"),
  models: (client: rheostat.Rheostat) => client.models(),
  control: (client: rheostat.Rheostat) => client.control(),
  plan: (client: rheostat.Rheostat) => client.plan("Hello"),
  score: (client: rheostat.Rheostat) => client.score("Hello", "Hi."),
  sweep: (client: rheostat.Rheostat) => client.sweep("Hello"),
})) {
  test(`an answer to ${route}() that is none of a Rheostat server's is refused`, async (t) => {
    const strange = [[], null, {}, { choices: [{}], data: {}, points: [{}], dials: {}, scores: 1, mode: 2 }];
    const [client] = await served(t, (response, _, nth) => answer(response, strange[nth - 1] as object));
    for (const _ of strange) {
      await assert.rejects(ask(client), (error) => {
        assert(error instanceof RheostatError, String(error));
        assert.match(error.message, /none of its answers: .*; baseUrl must be/);
        assert.equal(error.requestId, "request-7");
        return true;
      });
    }
  });
}

for (const status of [429, 503]) {
  test(`${status} is tried again, whole answers and streams alike`, async (t) => {
    const [client, server] = await served(t, (response, sent, nth) => {
      if (nth % 2 === 1) return refuse(response, status, { "Retry-After": "0" });
      if (!sent.body.stream) return answer(response, completion("Hi."));
      begin(response);
      response.end(piece("Hi.") + LAST);
    });
    assert.equal((await client.chat("Hello")).text, "Hi.");
    const stream = client.stream("Hello");
    for await (const _ of stream);
    assert.equal(stream.text, "Hi.");
    assert.equal(server.sent.length, 4);
  });
}

test("the server's Retry-After is waited for, in seconds or as a date", async (t) => {
  const [client, server] = await served(t, (response, _, nth) => {
    if (nth === 1) refuse(response, 429, { "Retry-After": "1" });
    else if (nth === 2) refuse(response, 429, { "Retry-After": new Date(Date.now() + 2000).toUTCString() });
    else answer(response, completion("Hi."));
  });
  await client.chat("Hello");
  const [first, second, third] = server.sent.map((sent) => sent.at);
  assert(second! - first! >= 990, "a second");
  assert(third! - second! >= 900, "to the second that the date names");
});

test("no more is tried than retries say", async (t) => {
  const [client, server] = await served(t, (response) => refuse(response, 503, { "Retry-After": "0" }), { retries: 3 });
  await assert.rejects(client.chat("Hello"), Unavailable);
  assert.equal(server.sent.length, 4);
});

test("a server that asks to wait for longer than a minute is not asked again, and the error says how long", async (t) => {
  const [client, server] = await served(t, (response) => refuse(response, 429, { "Retry-After": "3600" }));
  await assert.rejects(client.chat("Hello"), (error) => error instanceof TooManyRequests && error.retryAfter === 3600);
  assert.equal(server.sent.length, 1);
});

test("what another try would not help is tried once", async (t) => {
  const [client, server] = await served(t, (response) => refuse(response, 422));
  await assert.rejects(client.chat("Hello"), ApiError);
  assert.equal(server.sent.length, 1);
});

test("a connection that breaks is tried again", async (t) => {
  const [client, server] = await served(t, (response, _, nth) => {
    if (nth === 1) response.destroy();
    else answer(response, completion("Hi."));
  });
  assert.equal((await client.chat("Hello")).text, "Hi.");
  assert.equal(server.sent.length, 2);
});

test("a server that nobody runs cannot be reached", async (t) => {
  const server = await scripted(t, ANSWERS);
  const nobody = new Rheostat({ baseUrl: server.url.replace(/\d+$/, "1"), model: "demo", retries: 0 });
  await assert.rejects(nobody.chat("Hello"), (error) => {
    assert(error instanceof ConnectionFailed);
    assert.match(error.message, /ECONNREFUSED|bad port/);
    return true;
  });
});

test("a signal ends the wait before another try", async (t) => {
  const [client] = await served(t, (response) => refuse(response, 503, { "Retry-After": "30" }));
  const signal = AbortSignal.timeout(50);
  await assert.rejects(client.chat("Hello", { signal }), { name: "TimeoutError" });
});

test("a server that is silent for too long is given up and not asked again", async (t) => {
  const [client, server] = await served(t, () => undefined, { timeout: 400 });
  await assert.rejects(client.chat("Hello"), (error) => {
    assert(error instanceof NoAnswerInTime);
    assert.match(error.message, /0\.4 s/);
    return true;
  });
  await server.hungUp;
  assert.equal(server.sent.length, 1);
});

test("a point that failed bears its error, and the sweep goes on", async (t) => {
  const error = { message: "too slow", type: "timeout_error", param: null, code: "request_timeout" };
  const points = [
    { index: 0, safety: 0, error },
    {
      index: 1,
      safety: 1,
      content: "Hi.",
      finish_reason: "stop",
      control: RECEIPT,
      scores: { safety: 1, helpfulness: null },
    },
  ];
  const [client, server] = await served(t, (response, sent) => {
    if (!sent.body.stream) return answer(response, { object: "control.sweep", model: "demo", points, usage: {} });
    begin(response);
    response.end(
      [...points]
        .reverse()
        .map((point) => `data: ${JSON.stringify(point)}\n\n`)
        .join("") + "data: [DONE]\n\n",
    );
  });
  const swept = await client.sweep("Hello", { levels: { safety: [0, 1] }, scores: false, dials: { helpfulness: 0.5 } });
  const [failed, reached] = swept.points;
  assert.deepEqual([failed?.error?.code, failed?.text, failed?.receipt], ["request_timeout", null, null]);
  assert.deepEqual([reached?.error, reached?.text, reached?.dials], [null, "Hi.", { safety: 1 }]);
  assert.deepEqual(server.sent[0]?.body.sweep, { safety: [0, 1], scores: false });
  assert.deepEqual(server.sent[0]?.body.control, { helpfulness: 0.5 });
  const streamed = [];
  for await (const point of client.sweepPoints("Hello")) streamed.push(point.index);
  assert.deepEqual(streamed, [1, 0]);
});

test("an error that is null is none, of a point and of a stream's event", async (t) => {
  const point = { index: 0, content: "Hi.", control: RECEIPT, error: null };
  const [client] = await served(t, (response, sent) => {
    begin(response);
    response.end(sent.body.sweep ? event(point) + "data: [DONE]\n\n" : event({ choices: [], error: null }) + LAST);
  });
  for await (const point of client.sweepPoints("Hello")) assert.deepEqual([point.error, point.text], [null, "Hi."]);
  const stream = client.stream("Hello");
  for await (const _ of stream);
  assert.equal(stream.receipt.mode, "prompt");
});

test("a point that is neither an answer nor an error breaks its sweep", async (t) => {
  const [client] = await served(t, (response) => {
    begin(response);
    response.end(event({ index: 0, content: "Hi." }) + "data: [DONE]\n\n");
  });
  const reading = async (): Promise<void> => {
    for await (const _ of client.sweepPoints("Hello"));
  };
  await assert.rejects(reading, (error) => error instanceof StreamBroken && error.requestId === "request-7");
});
