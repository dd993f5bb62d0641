/** One request on its way: it ends when the caller's signal aborts, or when the server is silent for too long. */

import { ConnectionFailed, NoAnswerInTime, type RheostatError } from "./errors.js";

/** What Node's own fetch says when it waits no longer, which it does after 300 seconds. */
const SILENCE_OF_NODE = new Set(["UND_ERR_HEADERS_TIMEOUT", "UND_ERR_BODY_TIMEOUT"]);

export class Exchange {
  readonly #controller = new AbortController();
  readonly #silence: number;
  readonly #caller: AbortSignal | undefined;
  readonly #abort = (): void => this.#controller.abort(this.#caller?.reason);

  /** `silence` is in milliseconds. */
  constructor(silence: number, caller: AbortSignal | undefined) {
    caller?.throwIfAborted();
    this.#silence = silence;
    this.#caller = caller;
    caller?.addEventListener("abort", this.#abort, { once: true });
  }

  /** For `fetch`. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** What the server sends next; time that the caller takes between two pieces is not counted. */
  async next<T>(awaited: () => Promise<T>, broken: (cause: unknown) => RheostatError = connectionFailed): Promise<T> {
    const timer = setTimeout(() => this.#controller.abort(this.#silent()), this.#silence);
    try {
      return await awaited();
    } catch (error) {
      if (this.signal.aborted) throw this.signal.reason;
      throw isSilence(error)
        ? new NoAnswerInTime("the server sent nothing for 300 s", { cause: error })
        : broken(error);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Closes the connection, where an answer still comes on it. */
  end(): void {
    this.#caller?.removeEventListener("abort", this.#abort);
    this.#controller.abort();
  }

  #silent(): NoAnswerInTime {
    return new NoAnswerInTime(`the server sent nothing for ${this.#silence / 1000} s, which is the timeout`);
  }
}

function connectionFailed(cause: unknown): ConnectionFailed {
  return new ConnectionFailed(`the server cannot be reached, or hung up: ${reasonOf(cause)}`, { cause });
}

/** `fetch` hides it one level down, where it tells it at all. */
export function reasonOf(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return inner instanceof Error ? inner.message || inner.name : String(inner);
}

function isSilence(error: unknown): boolean {
  const cause: unknown = error instanceof Error ? error.cause : undefined;
  return cause instanceof Error && "code" in cause && SILENCE_OF_NODE.has(String(cause.code));
}
