/**
 * Every error that the client throws.
 *
 *     RheostatError
 *     ├── ApiError               the server refused or failed; has status, type, code, param and retryAfter
 *     │   ├── BadRequest         400, 413, 415
 *     │   ├── Unauthorized       401
 *     │   ├── NotPermitted       403
 *     │   ├── NotFound           404
 *     │   ├── InvalidField       422
 *     │   ├── TooManyRequests    429
 *     │   ├── NoScorers          501
 *     │   ├── EngineFailed       502
 *     │   ├── Unavailable        503
 *     │   └── StreamFailed       an error within a stream, which began as 200; its status is null
 *     ├── ConnectionFailed       the server cannot be reached, or hung up; has the status of an answer that was cut off
 *     ├── NoAnswerInTime         the server was silent for longer than `timeout`
 *     └── StreamBroken           a stream ended before its end, or holds what is no event of Rheostat's
 *
 * A request that its `signal` aborted throws the signal's reason, as `fetch` does.
 */

/** Base of all; `requestId` is null where no answer came. */
export class RheostatError extends Error {
  override readonly name: string = "RheostatError";
  readonly requestId: string | null;

  constructor(message: string, about: { requestId?: string | null; cause?: unknown } = {}) {
    super(message, about.cause === undefined ? undefined : { cause: about.cause });
    this.requestId = about.requestId ?? null;
  }
}

/** What the server says of an error, and the seconds that it asks to wait. */
export interface Told {
  readonly message: string;
  readonly status: number | null;
  readonly type: string | null;
  readonly code: string | null;
  readonly param: string | null;
  readonly retryAfter: number | null;
  readonly requestId: string | null;
}

export class ApiError extends RheostatError {
  override readonly name: string = "ApiError";
  readonly status: number | null;
  readonly type: string | null;
  readonly code: string | null;
  /** The path of the field at fault. */
  readonly param: string | null;
  /** Seconds. */
  readonly retryAfter: number | null;

  constructor(told: Told) {
    super(told.message, { requestId: told.requestId });
    this.status = told.status;
    this.type = told.type;
    this.code = told.code;
    this.param = told.param;
    this.retryAfter = told.retryAfter;
  }
}

export class BadRequest extends ApiError {
  override readonly name = "BadRequest";
}

export class Unauthorized extends ApiError {
  override readonly name = "Unauthorized";
}

export class NotPermitted extends ApiError {
  override readonly name = "NotPermitted";
}

export class NotFound extends ApiError {
  override readonly name = "NotFound";
}

export class InvalidField extends ApiError {
  override readonly name = "InvalidField";
}

export class TooManyRequests extends ApiError {
  override readonly name = "TooManyRequests";
}

export class NoScorers extends ApiError {
  override readonly name = "NoScorers";
}

export class EngineFailed extends ApiError {
  override readonly name = "EngineFailed";
}

export class Unavailable extends ApiError {
  override readonly name = "Unavailable";
}

export class StreamFailed extends ApiError {
  override readonly name = "StreamFailed";
}

export class ConnectionFailed extends RheostatError {
  override readonly name = "ConnectionFailed";
  /** Of an answer that had begun and was cut off, whose request is not sent again; null where none came. */
  readonly status: number | null;

  constructor(message: string, about: { status?: number; requestId?: string | null; cause?: unknown } = {}) {
    super(message, about);
    this.status = about.status ?? null;
  }
}

export class NoAnswerInTime extends RheostatError {
  override readonly name = "NoAnswerInTime";
}

export class StreamBroken extends RheostatError {
  override readonly name = "StreamBroken";
}

const BY_STATUS: Readonly<Record<number, new (told: Told) => ApiError>> = {
  400: BadRequest,
  401: Unauthorized,
  403: NotPermitted,
  404: NotFound,
  413: BadRequest,
  415: BadRequest,
  422: InvalidField,
  429: TooManyRequests,
  501: NoScorers,
  502: EngineFailed,
  503: Unavailable,
};

/** Characters of a body that is no error of Rheostat's, such as a proxy's page. */
const SHOWN = 200;

/** The error of a response that is not 200, whose body is `text`. */
export function errorOf(response: Response, text: string): ApiError {
  const otherwise = `HTTP ${response.status}: ${text.slice(0, SHOWN) || response.statusText}`;
  return new (BY_STATUS[response.status] ?? ApiError)({
    ...errorIn(json(text), otherwise),
    status: response.status,
    retryAfter: retryAfterOf(response),
    requestId: requestIdOf(response),
  });
}

/** The error that a stream's event or a sweep's point bears as `error`, if it bears one. */
export function errorWithin(value: { readonly error?: unknown }, requestId: string | null): StreamFailed | null {
  if (value.error === undefined || value.error === null) return null;
  const told = errorIn(value, "the server sent an error without a message");
  return new StreamFailed({ ...told, status: null, retryAfter: null, requestId });
}

export function requestIdOf(response: Response): string | null {
  return response.headers.get("x-request-id");
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function errorIn(body: unknown, otherwise: string): Pick<Told, "message" | "type" | "code" | "param"> {
  const error = isRecord(body) && isRecord(body["error"]) ? body["error"] : {};
  return {
    message: text(error["message"]) ?? otherwise,
    type: text(error["type"]),
    code: text(error["code"]),
    param: text(error["param"]),
  };
}

function text(value: unknown): string | null {
  return typeof value === "string" ? value : typeof value === "number" ? String(value) : null;
}

function json(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return null;
  }
}

/** Seconds; the header holds them, or a date. */
function retryAfterOf(response: Response): number | null {
  const told = response.headers.get("retry-after")?.trim();
  if (!told) return null;
  if (/^\d+(\.\d+)?$/.test(told)) return Number(told);
  const at = Date.parse(told);
  return Number.isNaN(at) ? null : Math.max(0, (at - Date.now()) / 1000);
}
