/** Names for what the server takes and answers, from the types that its OpenAPI document makes. */

import type { paths } from "./openapi.js";

type Answered<Path extends keyof paths, Method extends keyof paths[Path]> = paths[Path][Method] extends {
  responses: { 200: { content: { "application/json": infer Body } } };
}
  ? Body
  : never;
type Taken<Path extends keyof paths, Method extends keyof paths[Path]> = paths[Path][Method] extends {
  requestBody: { content: { "application/json": infer Body } };
}
  ? Body
  : never;

export type ChatBody = Taken<"/v1/chat/completions", "post">;
export type SweepBody = Taken<"/v1/control/sweep", "post">;
export type ScoreBody = Taken<"/v1/control/score", "post">;
export type Message = ChatBody["messages"][number];
export type Mode = Control["default_mode"];
export type Levels = Omit<NonNullable<SweepBody["sweep"]>, "scores">;

export type Completion = Answered<"/v1/chat/completions", "post">;
export type Control = Answered<"/v1/control", "get">;
export type Models = Answered<"/v1/models", "get">;
export type Model = Models["data"][number];
export type Plan = Answered<"/v1/control/plan", "post">;
export type Scores = Answered<"/v1/control/score", "post">;
export type SweepAnswer = Answered<"/v1/control/sweep", "post">;
export type WirePoint = SweepAnswer["points"][number];

/** What was asked of the dials, what was in force, and how; in the names of docs/api.md. */
export type Receipt = Completion["control"];

/** Each from 0 to 1; one that is left out takes the caller's default. */
export interface Dials {
  readonly safety?: number | undefined;
  readonly helpfulness?: number | undefined;
}
