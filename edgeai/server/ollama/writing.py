"""What chats and completions do once a prompt is token ids: run it and write it, as lines of JSON or in one piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fastapi import Request
from starlette.responses import JSONResponse, Response

from edgeai.engine.request import FinishReason
from edgeai.grammar.spec import GrammarSpec
from edgeai.server.generation import Generation, Usage, plan
from edgeai.server.metrics import Metrics
from edgeai.server.ollama.documents import Calls, Stopwatch, now
from edgeai.server.ollama.options import max_tokens
from edgeai.server.ollama.protocol import WritingRequest
from edgeai.server.openai.deltas import ReplyDeltas
from edgeai.server.openai.logprobs import ShownTokens, chat_logprobs
from edgeai.server.openai.sampling import sampling_params
from edgeai.server.openai.structured import compiled
from edgeai.server.openai.terms import terms_of
from edgeai.server.protocol import GenerationRequest
from edgeai.server.streaming import LINES, EventStream, all_documents, unless_disconnected

if TYPE_CHECKING:
    from edgeai.model import AsyncModel, Chunk


class Form(Protocol):
    """The fields that tell a chat's documents from a completion's."""

    def tokens(self, ids: Sequence[int]) -> None:
        """The prompt's token ids, and then those of the answer as they come."""
        ...

    def part(self, message: dict[str, Any]) -> dict[str, Any]:
        """A piece of the answer: `content`, and `thinking` and `tool_calls` where there are any."""
        ...

    def last(self) -> dict[str, Any]:
        """More fields of the last document."""
        ...


class ChatForm:
    """`message` with a role."""

    def tokens(self, ids: Sequence[int]) -> None:
        """Nobody asks for them."""

    def part(self, message: dict[str, Any]) -> dict[str, Any]:
        return {"message": {"role": "assistant", **message}}

    def last(self) -> dict[str, Any]:
        return {}


class GenerateForm:
    """`response`, and at last the token ids of everything as `context`, for a request that goes on from there."""

    def __init__(self) -> None:
        self._context: list[int] = []

    def tokens(self, ids: Sequence[int]) -> None:
        self._context += ids

    def part(self, message: dict[str, Any]) -> dict[str, Any]:
        thinking = {"thinking": message["thinking"]} if "thinking" in message else {}
        return {"response": message["content"], **thinking}

    def last(self) -> dict[str, Any]:
        return {"context": self._context}


class Reply:
    """Writes one answer. `name` is what the client calls the model."""

    def __init__(
        self, name: str, model: AsyncModel, form: Form, deltas: ReplyDeltas, watch: Stopwatch, *, logprobs: bool
    ) -> None:
        self._name, self._form, self._deltas, self._watch = name, form, deltas, watch
        self._tokenizer = model.tokenizer if logprobs else None
        self._shown, self._calls = ShownTokens(), Calls()
        self._reason: FinishReason | None = None

    def events(self, _choice: int, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """The documents for a chunk: one, if it says anything."""
        self._watch.token()
        self._form.tokens(chunk.token_ids)
        message = self._message(
            self._deltas.push(chunk.text, chunk.finish_reason), done=chunk.finish_reason is not None
        )
        self._reason = chunk.finish_reason
        logprobs = self._logprobs(chunk)
        if len(message) > 1 or message["content"] or logprobs:
            yield self._document(message, logprobs, done=False)

    def closing(self, usage: Usage) -> Iterator[dict[str, Any]]:
        """The last document: why it ended, and how long everything took."""
        document = self._document({"content": ""}, {}, done=True)
        yield {**document, "done_reason": self._reason, **self._form.last(), **self._watch.durations(usage)}

    def whole(self, documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """All documents of a stream in one."""
        messages = [self._unformed(document) for document in documents]
        message: dict[str, Any] = {"content": "".join(each.get("content", "") for each in messages)}
        if thinking := "".join(each.get("thinking", "") for each in messages):
            message["thinking"] = thinking
        if calls := [call for each in messages for call in each.get("tool_calls", ())]:
            message["tool_calls"] = calls
        entries = [entry for document in documents for entry in document.get("logprobs", ())]
        return {**documents[-1], **self._form.part(message), **({"logprobs": entries} if entries else {})}

    @staticmethod
    def _unformed(document: dict[str, Any]) -> dict[str, Any]:
        if "message" in document:
            return dict(document["message"])
        return {"content": document["response"], "thinking": document.get("thinking", "")}

    def _message(self, deltas: Sequence[dict[str, Any]], *, done: bool) -> dict[str, Any]:
        """What a chunk adds. Calls are told when they are complete: when anything else follows, or at the end."""
        message: dict[str, Any] = {"content": "".join(delta.get("content", "") for delta in deltas)}
        if thinking := "".join(delta.get("reasoning_content", "") for delta in deltas):
            message["thinking"] = thinking
        for delta in deltas:
            self._calls.push(delta)
        if (done or message["content"]) and (calls := self._calls.take()):
            message["tool_calls"] = calls
        return message

    def _logprobs(self, chunk: Chunk) -> dict[str, Any]:
        shown = self._shown.push(chunk)
        if self._tokenizer is None or not shown:
            return {}
        return {"logprobs": chat_logprobs(self._tokenizer, shown)["content"]}

    def _document(self, message: dict[str, Any], more: dict[str, Any], *, done: bool) -> dict[str, Any]:
        return {"model": self._name, "created_at": now(), **self._form.part(message), **more, "done": done}


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be written: behind which tokens, under which rules, and how it is told."""

    prompt: Sequence[int]
    rules: GenerationRequest  # in OpenAI's words
    form: Form
    deltas: ReplyDeltas
    spec: GrammarSpec | None = None
    shown: frozenset[int] = frozenset()


async def write(
    request: Request, body: WritingRequest, model: AsyncModel, metrics: Metrics, task: Task, watch: Stopwatch
) -> Response:
    """Run a task and write it; a client that leaves ends it. Raises what the engine raises."""
    params = sampling_params(
        model,
        task.rules,
        max_tokens=max_tokens(model, body.options),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        grammar=await compiled(model, task.spec),
    )
    jobs = plan([task.prompt], params, task.rules.stop, 1, shown=task.shown)
    terms = terms_of(request, task.rules)
    generation = Generation(model, jobs, metrics.of_model(model.name), arrived=watch.arrived, terms=terms)
    request.state.usage = generation.usage
    task.form.tokens(task.prompt)
    reply = Reply(body.model, model, task.form, task.deltas, watch, logprobs=bool(body.logprobs))
    if body.stream is not False:
        return EventStream(generation, reply, LINES)
    documents = await unless_disconnected(request.receive, all_documents(generation, reply))
    return JSONResponse(reply.whole(documents))


def nothing_written(name: str, form: Form, reason: str) -> Response:
    """The answer to a request that only loads a model, or unloads it."""
    part = form.part({"content": ""})
    return JSONResponse({"model": name, "created_at": now(), **part, "done": True, "done_reason": reason})
