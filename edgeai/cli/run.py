"""`edgeai run`: one prompt, one answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeai.cli.output import JsonFlag, ModelArgument, Threads, UseProfile, emit, load_model

if TYPE_CHECKING:
    from edgeai.model import Chunk, Model

MaxTokens = Annotated[int | None, typer.Option(help="Most tokens to generate.")]
Temperature = Annotated[float | None, typer.Option(help="0 always takes the likeliest token.")]
Seed = Annotated[int | None, typer.Option(help="Makes sampling repeatable.")]
System = Annotated[str | None, typer.Option(help="System prompt.")]


@dataclass
class Answer:
    """An answer as it comes in, with the moments that timings are made of."""

    started: float = field(default_factory=time.perf_counter)
    first: float | None = None
    last: float | None = None
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None

    def collect(self, chunks: Iterable[Chunk], show: Callable[[str], object]) -> None:
        """Take in all chunks, showing their text at once."""
        for chunk in chunks:
            self.last = time.perf_counter()
            self.first = self.first or self.last
            self.text += chunk.text
            self.token_ids.extend(chunk.token_ids)
            self.finish_reason = chunk.finish_reason and str(chunk.finish_reason)
            show(chunk.text)

    def timings(self) -> dict[str, float | int | None]:
        """Seconds to the first token, tokens, and tokens per second after the first."""
        first, last, count = self.first or self.started, self.last or self.started, len(self.token_ids)
        return {
            "first_token_seconds": round(first - self.started, 4),
            "generated_tokens": count,
            "tokens_per_second": round((count - 1) / (last - first), 2) if count > 1 and last > first else None,
        }


def run(
    model: ModelArgument,
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads standard input.")],
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    system: System = None,
    threads: Threads = None,
    profile: UseProfile = True,
    json: JsonFlag = False,
) -> None:
    """Answer one prompt."""
    text = sys.stdin.read() if prompt == "-" else prompt
    started = time.perf_counter()
    with load_model(model, threads=threads, profile=profile) as loaded:
        load_seconds = time.perf_counter() - started
        ids = encode(loaded, text, system)
        answer = Answer()
        params = loaded.default_params(max_tokens=max_tokens, temperature=temperature, seed=seed)
        answer.collect(loaded.stream(ids, params), _discard if json else show)
    if not json:
        typer.echo()
        return
    timings = {"load_seconds": round(load_seconds, 4), "prompt_tokens": len(ids)} | answer.timings()
    emit(
        {"text": answer.text, "token_ids": answer.token_ids, "finish_reason": answer.finish_reason, "timings": timings}
    )


def encode(model: Model, prompt: str, system: str | None) -> list[int]:
    """Token ids of a question to a chat model, or of a text for a model without chat template to continue."""
    if model.template is None:
        return model.encode_text(f"{system}\n\n{prompt}" if system else prompt)
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    return model.encode_chat([*messages, {"role": "user", "content": prompt}])


def show(text: str) -> None:
    """Print a piece of an answer at once."""
    typer.echo(text, nl=False)
    sys.stdout.flush()


def _discard(text: str) -> None:
    """With --json the answer comes as a whole."""
