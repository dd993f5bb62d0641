/** An answer that comes piece by piece, and its receipt at the end. */

import type { Usage } from "./answer.js";
import type { Events } from "./connection.js";
import { isRecord, RheostatError, StreamBroken } from "./errors.js";
import { isReceipt, isText } from "./shapes.js";
import type { Receipt } from "./types.js";

/** The parts of a `chat.completion.chunk` that are read. */
interface Chunk {
  readonly model?: string;
  readonly choices?: readonly {
    readonly delta?: { readonly content?: string | null };
    readonly finish_reason?: string;
  }[];
  readonly usage?: Usage | null;
  readonly control?: Receipt;
}

/**
 * Pieces of text, to be read once. Nothing is asked before the first is; leaving the loop closes the connection.
 *
 * `text` is what has come so far; `receipt`, `finishReason`, `usage` and `model` are there once the loop has ended.
 */
export class AnswerStream implements AsyncIterable<string> {
  text = "";
  finishReason: string | null = null;
  usage: Usage | null = null;
  model: string | null = null;
  requestId: string | null = null;
  readonly #open: () => Promise<Events>;
  #begun = false;
  #receipt: Receipt | undefined;

  constructor(open: () => Promise<Events>) {
    this.#open = open;
  }

  /** Throws before the stream has come to its end. */
  get receipt(): Receipt {
    if (this.#receipt === undefined) {
      throw new RheostatError("the stream has not come to its end, where its receipt is: read it in a for await loop");
    }
    return this.#receipt;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    if (this.#begun) throw new RheostatError("this stream was read already; ask for another one");
    this.#begun = true;
    const events = await this.#open();
    this.requestId = events.requestId;
    for await (const chunk of events) {
      if (!isChunk(chunk)) throw events.unreadable(chunk);
      const piece = this.#take(chunk);
      if (piece) yield piece;
    }
    if (this.#receipt === undefined) {
      throw new StreamBroken("the stream bore no receipt; baseUrl must be the address of a Rheostat server", this);
    }
  }

  #take(chunk: Chunk): string {
    const choice = chunk.choices?.[0];
    this.model ??= chunk.model ?? null;
    this.usage = chunk.usage ?? this.usage;
    this.finishReason = choice?.finish_reason ?? this.finishReason;
    this.#receipt = chunk.control ?? this.#receipt;
    const piece = choice?.delta?.content ?? "";
    this.text += piece;
    return piece;
  }
}

function isChunk(value: unknown): value is Chunk {
  if (!isRecord(value) || !(value["control"] === undefined || value["control"] === null || isReceipt(value["control"])))
    return false;
  const choices = value["choices"] ?? [];
  return Array.isArray(choices) && choices.every((choice) => isRecord(choice) && isText(textIn(choice["delta"])));
}

function textIn(delta: unknown): unknown {
  return isRecord(delta) ? delta["content"] : undefined;
}
