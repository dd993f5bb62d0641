// The request as code that runs as it stands: curl, Python with the openai client, and TypeScript with fetch alone.

import { baseUrl } from "./api.js";
import { chatBody } from "./request.js";
import { el } from "./dom.js";

const MAKERS = { curl, Python: python, TypeScript: typescript };

/** A block for each language, with a button that copies it. */
export function snippetViews(asked) {
  const body = chatBody(asked);
  return Object.entries(MAKERS).map(([language, make]) => snippetView(language, make(body, baseUrl())));
}

function snippetView(language, code) {
  const shown = el("pre", { tabindex: "0", "aria-label": `${language} code`, role: "group" }, el("code", {}, code));
  const done = el("span", { class: "status", role: "status" });
  const copy = el("button", { type: "button", onclick: () => copyCode(code, shown, done) }, `Copy as ${language}`);
  return el("section", { class: "snippet", "data-language": language }, el("div", { class: "actions" }, el("h3", {}, language), copy, done), shown);
}

/** Pages that are not served from this machine or by TLS have no clipboard; the code is then selected to be copied. */
async function copyCode(code, shown, done) {
  try {
    await navigator.clipboard.writeText(code);
    done.textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(shown);
    done.textContent = "Selected; copy it with Ctrl and C.";
  }
}

function curl(body, base) {
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", `'\\''`);
  return [
    `curl ${base}/chat/completions \\`,
    `  -H 'Content-Type: application/json' \\`,
    `  -H "Authorization: Bearer \${RHEOSTAT_API_KEY:-none}" \\`,
    `  -d '${quoted}'`,
    "",
  ].join("\n");
}

function python({ model, messages, max_tokens: maxTokens, control }, base) {
  return [
    "import os",
    "",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${literal(base)}, api_key=os.environ.get("RHEOSTAT_API_KEY", "none"))`,
    "answer = client.chat.completions.create(",
    `    model=${literal(model)},`,
    `    messages=${literal(messages)},`,
    ...(maxTokens !== undefined ? [`    max_tokens=${maxTokens},`] : []),
    `    extra_body={"control": ${literal(control)}},`,
    ")",
    "print(answer.choices[0].message.content)",
    "print(answer.control)",
    "",
  ].join("\n");
}

/** JSON of texts and numbers alone, as all of these are, is Python too. */
const literal = (value) => spaced(JSON.stringify(value, null, 1));

/** On one line, with a blank after each comma; line ends within a text are written as \n, so all of them are ours. */
const spaced = (json) => json.replace(/([[{])\n\s*/g, "$1").replace(/\n\s*([\]}])/g, "$1").replace(/,\n\s*/g, ", ");

function typescript(body, base) {
  return [
    `const response = await fetch(${JSON.stringify(`${base}/chat/completions`)}, {`,
    `  method: "POST",`,
    `  headers: {`,
    `    "Content-Type": "application/json",`,
    `    Authorization: \`Bearer \${process.env.RHEOSTAT_API_KEY ?? "none"}\`,`,
    `  },`,
    `  body: JSON.stringify(${JSON.stringify(body, null, 2).replaceAll("\n", "\n  ")}),`,
    `});`,
    `const answer = JSON.parse(await response.text());`,
    `if (!response.ok) throw new Error(answer.error.message);`,
    `console.log(answer.choices[0].message.content);`,
    `console.log(answer.control);`,
    "",
  ].join("\n");
}
