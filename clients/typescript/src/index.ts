/** Client for Rheostat: two dials, safety and helpfulness, on a language model, set by each request. */

export type { Answer, Point, Swept, Usage } from "./answer.js";
export type { ChatOptions, Messages, PlanOptions, StreamOptions, SweepOptions } from "./body.js";
export { Rheostat, type Options } from "./client.js";
export {
  ApiError,
  BadRequest,
  ConnectionFailed,
  EngineFailed,
  InvalidField,
  NoAnswerInTime,
  NoScorers,
  NotFound,
  NotPermitted,
  RheostatError,
  StreamBroken,
  StreamFailed,
  TooManyRequests,
  Unauthorized,
  Unavailable,
} from "./errors.js";
export type { AnswerStream } from "./stream.js";
export type { ChatBody, Completion, Control, Dials, Message, Mode, Model, Plan, Receipt, Scores } from "./types.js";
