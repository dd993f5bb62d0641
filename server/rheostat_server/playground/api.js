// Requests to the server that this page came from, with the caller's key; whatever fails is an ApiError.

const KEPT = "rheostat-key";
const BASE = new URL("v1/", document.baseURI);

export const baseUrl = () => BASE.href.replace(/\/$/, "");

/** In the session alone: gone with the tab, and in no address. Where the browser closes its storage, gone with the page. */
export const key = {
  get: () => stored((session) => session.getItem(KEPT)) || unstored,
  set(value) {
    unstored = value;
    stored((session) => (value ? session.setItem(KEPT, value) : session.removeItem(KEPT)));
  },
};
let unstored = "";

function stored(act) {
  try {
    return act(sessionStorage);
  } catch (problem) {
    if (problem instanceof DOMException) return null;
    throw problem;
  }
}

/** What the server said was wrong; `status` is 0 where it said nothing. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, requestId = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.requestId = requestId;
  }
}

export async function get(path) {
  return jsonOf(await send(path, {}));
}

export async function post(path, body, signal) {
  return jsonOf(await send(path, { method: "POST", body: JSON.stringify(body), signal }));
}

/** The JSON values of a stream's events, until its own end. */
export async function* events(path, body, signal) {
  const response = await send(path, { method: "POST", body: JSON.stringify(body), signal });
  const { requestId } = toldBy(response);
  for await (const data of dataOf(response.body.getReader(), requestId)) {
    if (data === "[DONE]") return;
    const value = parsed(data, toldBy(response));
    if (value.error && value.index === undefined) throw errorFrom(value.error, { status: response.status, requestId });
    yield value;
  }
  throw new ApiError("The stream ended before the answer did.", { code: "broken_off", requestId });
}

async function send(path, options) {
  const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}) };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  const response = await reach(new URL(path, BASE), { ...options, headers, credentials: "omit", cache: "no-store" });
  if (!response.ok) throw await refusal(response);
  return response;
}

async function reach(url, options) {
  try {
    return await fetch(url, options);
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new ApiError("The server cannot be reached.", { code: "unreachable" });
  }
}

const toldBy = (response) => ({ status: response.status, requestId: response.headers.get("x-request-id") });

async function jsonOf(response) {
  const told = toldBy(response);
  return parsed(await unbroken(response.text(), told.requestId), told);
}

/** A proxy that wants its users to sign in answers with a page of its own, and says that all is well. */
function parsed(text, told) {
  try {
    return JSON.parse(text);
  } catch {
    throw noAnswer(told);
  }
}

export const noAnswer = (told = {}) =>
  new ApiError("What came is no answer of a Rheostat server. Does something in between want you to sign in?", {
    ...told,
    code: "no_answer",
  });

async function refusal(response) {
  const told = toldBy(response);
  const text = await unbroken(response.text(), told.requestId);
  try {
    return errorFrom(JSON.parse(text).error, told);
  } catch {
    return new ApiError(text.slice(0, 300) || "The server gave no reason.", told);
  }
}

/** vLLM's own refusal of a key is a bare text; every other error is an object. */
function errorFrom(error, told) {
  if (typeof error === "string") return new ApiError(error, told);
  return new ApiError(error.message, { ...told, code: error.code ?? error.type });
}

/** The data of each event, wherever the chunks are cut. */
async function* dataOf(reader, requestId) {
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (let done = false, value; !done; ) {
      ({ done, value } = await unbroken(reader.read(), requestId));
      const whole = (text + decoder.decode(value, { stream: !done })).split(/\r?\n\r?\n/);
      text = whole.pop();
      yield* whole.map(dataIn).filter(Boolean);
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stops reading early hangs up
  }
}

/** The data of one event; a comment has none. */
function dataIn(block) {
  const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice("data:".length).trim()).join("\n");
}

async function unbroken(coming, requestId) {
  try {
    return await coming;
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new ApiError("The connection broke before the answer ended.", { code: "broken_off", requestId });
  }
}
