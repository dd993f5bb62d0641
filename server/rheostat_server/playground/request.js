// The body of a request, made of what the page's fields say.

import { reranks, takesAdapter, takesBlend } from "./envelope.js";

/** A chat body. A preset says the dials itself, and dials of our own would go before it. */
export function chatBody(asked) {
  return {
    model: asked.model,
    messages: messages(asked),
    ...(asked.maxTokens !== null ? { max_tokens: asked.maxTokens } : {}),
    control: { ...(asked.preset ? { preset: asked.preset } : asked.dials), ...means(asked) },
  };
}

/** The same conversation at a grid of dials. */
export function sweepBody(asked, levels) {
  return { ...chatBody(asked), control: means(asked), sweep: levels, stream: true };
}

export function messages(asked) {
  const system = asked.system.trim() ? [{ role: "system", content: asked.system }] : [];
  return [...system, { role: "user", content: asked.prompt }];
}

/** How the dials are to be obeyed; what does not go with the mode is left out, for the server would refuse it. */
function means({ mode, adapter, candidates }) {
  return {
    mode,
    ...(adapter && (takesAdapter(mode) || takesBlend(mode)) ? { adapter } : {}),
    ...(candidates !== null && reranks(mode) ? { candidates } : {}),
  };
}
