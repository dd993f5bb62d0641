/** Server-sent events out of a stream's bytes, wherever those are cut. */

const LINE_END = /\r\n|\r|\n/;

/** Takes chunks and gives the data of the events that they complete; comments and fields other than data have none. */
export class EventReader {
  readonly #decoder = new TextDecoder();
  #line = "";
  #data: string[] = [];
  #afterReturn = false;

  /** A chunk may end within a character, or between the two halves of a line's end. */
  take(chunk: Uint8Array): string[] {
    const lines = (this.#line + this.#decoded(chunk)).split(LINE_END);
    this.#line = lines.pop() ?? "";
    return lines.map((line) => this.#ended(line)).filter((data) => data !== null);
  }

  /** The text of a chunk, less the line feed whose carriage return ended the chunk before. */
  #decoded(chunk: Uint8Array): string {
    const text = this.#decoder.decode(chunk, { stream: true });
    if (text === "") return text;
    const rest = this.#afterReturn && text.startsWith("\n") ? text.slice(1) : text;
    this.#afterReturn = text.endsWith("\r");
    return rest;
  }

  /** An empty line ends an event, and gives its data. */
  #ended(line: string): string | null {
    if (line === "") {
      const data = this.#data;
      this.#data = [];
      return data.length > 0 ? data.join("\n") : null;
    }
    if (line === "data") this.#data.push("");
    if (line.startsWith("data:")) this.#data.push(line.slice(line[5] === " " ? 6 : 5));
    return null;
  }
}
