"""A model ready to answer: package, tokenizer, chat template and engine in one piece.

    with Model.load(package) as model:
        for chunk in model.chat([{"role": "user", "content": "Why is the sky blue?"}], model.default_params()):
            print(chunk.text, end="")

`AsyncModel` is the same for servers.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from edgeai.device.power_governor import PowerGovernor
from edgeai.engine.adapters import Adapter
from edgeai.engine.async_engine import AsyncEngine
from edgeai.engine.config import EngineSettings, KVType, ModelShape
from edgeai.engine.engine import Engine
from edgeai.engine.prompt_reader import PromptGraph
from edgeai.engine.request import FinishReason, SamplingParams, TokenOutput
from edgeai.engine.terms import DEFAULT_TERMS, Terms
from edgeai.errors import InvalidInput, PackageError
from edgeai.grammar.compiler import GrammarCompiler
from edgeai.memory_plan import make_governor, planned
from edgeai.package.adapters import SEPARATOR, InstalledAdapter
from edgeai.package.block_store import BlockStore, remove_unused
from edgeai.package.kv_blocks import BlockFormat
from edgeai.package.manifest import Manifest
from edgeai.package.package import Graphs, Package
from edgeai.package.warm_blocks import LayeredStore, open_warm
from edgeai.text.chat_template import ChatTemplate
from edgeai.text.prompt import encode_chat
from edgeai.text.stream import Detokenizer, StopStrings
from edgeai.text.tokenizer import Tokenizer

__all__ = ["AsyncModel", "Chunk", "Model", "default_settings", "model_shape"]

Message = Mapping[str, Any]
QUEUED_BYTES, QUEUED_PART = 64 << 20, 16  # of blocks that wait to be written: in memory beside the KV budget


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer: text that can be shown, the tokens it took, and on the last one why it ended."""

    text: str
    tokens: tuple[TokenOutput, ...]
    finish_reason: FinishReason | None = None

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(token.token_id for token in self.tokens)


class TextStream:
    """Turns the tokens of one sequence into chunks: detokenized, and cut before a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], shown: frozenset[int] = frozenset()) -> None:
        """`shown` are control tokens that are part of the text."""
        self._detokenizer = Detokenizer(tokenizer, shown=shown)
        self._stops = StopStrings(stop)

    def push(self, output: TokenOutput) -> Chunk:
        """The chunk of one more token; its finish reason is STOP when it completes a stop string."""
        text, stopped = self._stops.push("" if output.is_end else self._detokenizer.push(output.token_id))
        if stopped:
            return Chunk(text, (output,), FinishReason.STOP)
        if output.finish_reason is None:
            return Chunk(text, (output,))
        rest, stopped = self._stops.push(self._detokenizer.finish())
        tail = "" if stopped else self._stops.finish()
        return Chunk(text + rest + tail, (output,), FinishReason.STOP if stopped else output.finish_reason)


class _LoadedModel:
    """What `Model` and `AsyncModel` share: everything but how tokens are waited for."""

    def __init__(self, package: Package, settings: EngineSettings | None, disk: DiskCache | None = None) -> None:
        manifest = package.manifest
        require_decoder(manifest)
        self.package = package
        self.adapter: Adapter | None = None
        limits = settings or default_settings(manifest)
        self.store = open_store(package, limits, disk)
        with ThreadPoolExecutor(1, "edgeai-load") as pool:  # onnxruntime lets Python go on while it loads the graph
            graphs = package.graphs(limits.kv_type)
            shape = model_shape(manifest, limits.kv_type)
            text = load_text(package) if limits.tight else None  # first, where the engine measures what is left
            parts = partial(Engine, store=self.store, governor=make_governor())
            others = {"adapter_graph": graphs.adapters, "prompt_graph": prompt_graph(package, graphs)}
            engine = pool.submit(parts, graphs.plain, shape, limits, **others)
            self.tokenizer, self.template = text or load_text(package)
        self.grammars = GrammarCompiler(self.tokenizer, manifest.tokens.eos)
        self._engine = engine.result()

    @classmethod
    def load(
        cls, package: Package, settings: EngineSettings | None = None, *, disk: DiskCache | None = None, **options: Any
    ) -> Self:
        """With `disk`, what was computed for a prompt is kept across restarts; `close` then writes what is queued.

        Raises `PackageError` for a damaged package, `OutOfMemory` when it does not fit.
        """
        return cls(package, settings, disk, **options)

    def with_adapter(self, installed: InstalledAdapter) -> Self:
        """The same model, engine and all, answering with an adapter; reads and verifies the adapter's weights.

        Raises `PackageError` for one that is damaged or was made for another build of the package.
        """
        if not installed.fits(self.package):
            raise PackageError(
                f"adapter {installed.model_name} was made for another build of {self.package.name}", "add it again"
            )
        adapted = copy.copy(self)
        adapted.adapter = Adapter(installed.name, bytes.fromhex(installed.digest), installed.load())
        return adapted

    @property
    def digest(self) -> str:
        """What answers: the package's digest, combined with the adapter's where there is one."""
        if self.adapter is None:
            return self.package.digest
        return hashlib.sha256(bytes.fromhex(self.package.digest) + self.adapter.key).hexdigest()

    @property
    def name(self) -> str:
        base = self.package.name
        return base if self.adapter is None else f"{base}{SEPARATOR}{self.adapter.name}"

    @property
    def manifest(self) -> Manifest:
        return self.package.manifest

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together; less than the model's own where settings or memory say so."""
        return self._engine.context_length

    @property
    def tight(self) -> bool:
        """Whether memory is so scarce that the budget had to be measured."""
        return self._engine.settings.tight

    def require_template(self) -> ChatTemplate:
        """The chat template. Raises `InvalidInput` for a model without one."""
        if self.template is None:
            raise InvalidInput(f"{self.name} has no chat template", "use plain completion", param="messages")
        return self.template

    def encode_chat(self, messages: Sequence[Message], **template_args: Any) -> list[int]:
        """Token ids of a conversation, ready to be answered. The recipe's system prompt leads where there is none.

        Raises `InvalidInput` when the template refuses the messages, or the model has none, `ContextLengthExceeded` for
        far more than the context holds.
        """
        template = self.require_template()
        system = self.manifest.prompt.system
        if system and not (messages and messages[0].get("role") == "system"):
            messages = [{"role": "system", "content": system}, *messages]
        add_bos = self.manifest.tokens.add_bos
        most = self.context_length
        return encode_chat(self.tokenizer, template, messages, add_bos=add_bos, most=most, **template_args)

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text. Raises `ContextLengthExceeded` for far more than the context holds."""
        self.tokenizer.check_length(text, self.context_length)
        return self.tokenizer.encode(text, add_bos=self.manifest.tokens.add_bos)

    def default_params(self, **overrides: Any) -> SamplingParams:
        """The recipe's sampling parameters, with `overrides` that are not None. `max_tokens` fills the context."""
        recipe = self.manifest.prompt.model_dump(exclude={"system", "tool_format"})
        chosen = {"max_tokens": self.context_length} | {k: v for k, v in recipe.items() if v is not None}
        return SamplingParams(**(chosen | {k: v for k, v in overrides.items() if v is not None}))


class Model(_LoadedModel):
    """Answers one request at a time, in the calling thread."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.runner.close()
        if self.store is not None:
            self.store.close()

    @property
    def engine(self) -> Engine:
        return self._engine

    def chat(self, messages: Sequence[Message], params: SamplingParams, stop: Sequence[str] = ()) -> Iterator[Chunk]:
        """Answer a conversation, chunk by chunk."""
        return self.stream(self.encode_chat(messages), params, stop)

    def complete(self, prompt: str, params: SamplingParams, stop: Sequence[str] = ()) -> Iterator[Chunk]:
        """Continue a text, chunk by chunk."""
        return self.stream(self.encode_text(prompt), params, stop)

    def stream(self, prompt: Sequence[int], params: SamplingParams, stop: Sequence[str] = ()) -> Iterator[Chunk]:
        """Continue token ids. An iterator that is dropped cancels the request."""
        text = TextStream(self.tokenizer, stop)
        self._engine.add("", prompt, params, self.adapter)
        try:
            while self._engine.has_work:
                for _, output in self._engine.step():
                    chunk = text.push(output)
                    yield chunk
                    if chunk.finish_reason is not None:
                        return
                if "" in self._engine.failures:
                    raise self._engine.failures.pop("")
        finally:
            self._engine.cancel("")


class AsyncModel(_LoadedModel):
    """Answers many requests at once."""

    def __init__(
        self,
        package: Package,
        settings: EngineSettings | None,
        disk: DiskCache | None = None,
        power: PowerGovernor | None = None,
    ) -> None:
        """`power` slows the engine down, and refuses requests, where heat or a battery ask for it."""
        super().__init__(package, settings, disk)
        self.engine = AsyncEngine(self._engine, power, package.weights)

    async def stream(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        stop: Sequence[str] = (),
        *,
        terms: Terms = DEFAULT_TERMS,
        shown: frozenset[int] = frozenset(),
    ) -> AsyncGenerator[Chunk, None]:
        """Continue token ids; closing the generator cancels the request. Raises as `AsyncEngine.generate` does.

        `shown` are control tokens that are part of the text: marks around tool calls and thoughts.
        """
        text = TextStream(self.tokenizer, stop, shown)
        async with aclosing(self.engine.generate(prompt, params, terms=terms, adapter=self.adapter)) as outputs:
            async for output in outputs:
                chunk = text.push(output)
                yield chunk
                if chunk.finish_reason is not None:
                    return

    async def close(self) -> None:
        """Stop the engine; what still runs is cancelled. What waits to be written to disk is, for some seconds."""
        await self.engine.close()
        if self.store is not None:
            await asyncio.to_thread(self.store.close)


def prompt_graph(package: Package, graphs: Graphs) -> PromptGraph | None:
    """The graph that reads prompts, for packages that have one."""
    weights = package.prompt_weights
    return None if graphs.prompts is None or weights is None else PromptGraph(graphs.prompts, weights)


def require_decoder(manifest: Manifest) -> None:
    """Raises `InvalidInput` for an embedding model or a reranker, which have no text to answer with."""
    if manifest.kind != "decoder":
        what = {"embedding": "an embedding model", "reranker": "a reranker"}[manifest.kind]
        use = {"embedding": "`edgeai embed` or /v1/embeddings", "reranker": "`edgeai rerank` or /v1/rerank"}
        raise InvalidInput(f"{manifest.name} is {what}: it writes no text", f"use {use[manifest.kind]}", param="model")


def load_text(package: Package) -> tuple[Tokenizer, ChatTemplate | None]:
    """What turns conversations into token ids and back; models without a chat template have none."""
    manifest = package.manifest
    rows = manifest.architecture.vocab_size
    tokenizer = Tokenizer.load(package.tokenizer, bos_token_id=manifest.tokens.bos, rows=rows)
    if package.template is None:
        return tokenizer, None
    source = package.template.read_text(encoding="utf-8")
    return tokenizer, ChatTemplate(source, manifest.tokens.special_tokens)


@dataclass(frozen=True, slots=True)
class DiskCache:
    """Where computed prompts are kept across restarts, how much of the disk they may take, and of its writes a day."""

    root: Path
    disk_bytes: int
    daily_bytes: int


def open_store(package: Package, settings: EngineSettings, disk: DiskCache | None) -> LayeredStore | None:
    """The package's blocks, of this very model and cache format, for others have other keys and values.

    Those that came with it, over those on disk if there is a `disk`; None where there can be neither.
    """
    form = block_format(package, settings)
    warm = open_warm(package, form, kv_type=settings.kv_type, block_tokens=settings.block_tokens)
    if disk is None:
        return LayeredStore(warm, None) if warm is not None else None
    remove_unused(disk.root, keep=form.owner)
    folder = disk.root / form.owner
    queued = min(QUEUED_BYTES, settings.kv_budget_bytes // QUEUED_PART)
    blocks = BlockStore(folder, form, disk_bytes=disk.disk_bytes, daily_bytes=disk.daily_bytes, queued_bytes=queued)
    return LayeredStore(warm, blocks)


def block_format(package: Package, settings: EngineSettings) -> BlockFormat:
    """How the engine's cache blocks lie on disk."""
    shape = model_shape(package.manifest)
    dims = (shape.num_layers, 2, shape.num_kv_heads, settings.block_tokens, shape.head_size)
    owner = f"{package.model_digest[:32]}-{settings.kv_type}-{settings.block_tokens}"
    return BlockFormat(dims, settings.kv_type, owner=owner)


def model_shape(manifest: Manifest, kv_type: KVType = "float32") -> ModelShape:
    """What the engine needs of a manifest, and the type of KV cache that it is to have."""
    architecture = manifest.architecture
    return ModelShape(
        vocab_size=architecture.vocab_size,
        num_layers=architecture.num_layers,
        num_heads=architecture.num_heads,
        num_kv_heads=architecture.num_kv_heads,
        head_size=architecture.head_size,
        context_length=architecture.context_length,
        eos_token_ids=frozenset(manifest.tokens.eos),
        runtime=manifest.runtime,
        kv_type=kv_type,
    )


def default_settings(manifest: Manifest, **overrides: Any) -> EngineSettings:
    """Settings for this machine: its physical cores, and what its memory allows, within its control group's limit.

    `overrides` are fields of `EngineSettings`; those that are None are left to the default. Memory may allow less than
    they say. Raises `OutOfMemory` when the model does not fit.
    """
    chosen = {name: value for name, value in overrides.items() if value is not None}
    chosen.setdefault("threads", psutil.cpu_count(logical=False) or 1)
    settings = EngineSettings(**chosen)
    shape = model_shape(manifest, settings.kv_type)
    return planned(manifest, shape, settings, kv_bytes=chosen.get("kv_budget_bytes"))
