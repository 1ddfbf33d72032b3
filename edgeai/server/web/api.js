// The board's own API, as any OpenAI client uses it.

import { recall } from "./settings.js";

/** What the server said no with; status 0 when it could not be reached. */
export class ApiError extends Error {
  constructor(status, message, wait = null) {
    super(message);
    this.status = status;
    this.wait = wait; // seconds, from Retry-After
  }
}

async function ask(path, options = {}) {
  const key = recall("key");
  const headers = { ...options.headers, ...(key ? { authorization: "Bearer " + key } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, error.message);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const wait = Number(response.headers.get("retry-after")) || null;
  try {
    const { error } = await response.json();
    return new ApiError(response.status, error.message ?? error, wait);
  } catch {
    return new ApiError(response.status, `HTTP ${response.status}`, wait);
  }
}

/** Names of the models that can chat. */
export async function models() {
  const { data } = await (await ask("/v1/models")).json();
  return data.filter(model => (model.kind ?? "decoder") === "decoder").map(model => model.id);
}

export const status = async () => (await ask("/status")).json();

/** Pieces of the answer as they come: {content, reasoning, finish, usage}. */
export async function* chat(model, messages, signal) {
  const body = JSON.stringify({ model, messages, stream: true, stream_options: { include_usage: true } });
  const headers = { "content-type": "application/json" };
  const response = await ask("/v1/chat/completions", { method: "POST", headers, body, signal });
  for await (const event of events(response.body)) {
    if (event.error) throw new ApiError(event.error.code ?? 500, event.error.message);
    const choice = event.choices[0];
    yield {
      content: choice?.delta.content ?? "",
      reasoning: choice?.delta.reasoning_content ?? "",
      finish: choice?.finish_reason,
      usage: event.usage,
    };
  }
}

/** Server-sent events with JSON in them. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split("\n").filter(line => line.startsWith("data: ")).map(line => line.slice(6)).join("\n");
        if (data && data !== "[DONE]") yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the answer was aborted: there is nothing left to cancel
  }
}
