/** A local server that does as each test says, and what clients sent it. */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";

export interface Sent {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  /** What the client wrote, of whatever form. */
  readonly body: any;
  readonly at: number;
}

export type Script = (response: ServerResponse, sent: Sent, nth: number) => unknown;

export interface Scripted {
  readonly url: string;
  readonly sent: Sent[];
  /** Connections that were opened so far. */
  connections: number;
  /** Resolves when a client has hung up before its answer was whole. */
  readonly hungUp: Promise<void>;
}

/** Runs until the test ends. */
export async function scripted(test: TestContext, script: Script): Promise<Scripted> {
  let tellHungUp = (): void => undefined;
  const hungUp = new Promise<void>((resolve) => (tellHungUp = resolve));
  const server = createServer(async (request, response) => {
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece);
    const text = Buffer.concat(pieces).toString();
    response.on("close", () => response.writableFinished || tellHungUp());
    const { method = "", url = "", headers } = request;
    const sent = { method, path: url, headers, body: text && JSON.parse(text), at: performance.now() };
    scriptedServer.sent.push(sent);
    await script(response, sent, scriptedServer.sent.length);
  });
  server.on("connection", () => scriptedServer.connections++);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  test.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const scriptedServer: Scripted = { url: `http://127.0.0.1:${port}`, sent: [], connections: 0, hungUp };
  return scriptedServer;
}

export const RECEIPT = {
  requested: { safety: 0.9 },
  effective: { safety: 0.9, helpfulness: 0.75 },
  clamped: [],
  mode: "prompt",
  timing_ms: { plan: 0.1, total: 2 },
};

export function completion(text: string): object {
  const choices = [{ index: 0, message: { role: "assistant", content: text }, finish_reason: "stop" }];
  return { id: "1", object: "chat.completion", created: 0, model: "demo", choices, control: RECEIPT };
}

export function answer(response: ServerResponse, body: object, status = 200, headers: object = {}): void {
  response.writeHead(status, { "Content-Type": "application/json", "X-Request-ID": "request-7", ...headers });
  response.end(JSON.stringify(body));
}

export function refuse(response: ServerResponse, status: number, headers: object = {}): void {
  const error = { message: `refused with ${status}`, type: "kind", param: "control.safety", code: "why" };
  answer(response, { error }, status, headers);
}

export function begin(response: ServerResponse): void {
  response.writeHead(200, { "Content-Type": "text/event-stream", "X-Request-ID": "request-7" });
}

export function event(value: unknown): string {
  return `data: ${JSON.stringify(value)}\n\n`;
}

export function piece(content: string): string {
  return event({ model: "demo", choices: [{ index: 0, delta: { content } }] });
}

export const LAST = event({ model: "demo", choices: [], control: RECEIPT }) + "data: [DONE]\n\n";
