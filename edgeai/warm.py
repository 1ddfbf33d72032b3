"""Precomputed prompts: a package carries the KV blocks of prompts, so that a device need not read them the first time.

A prompt is the text of a system prompt, or, for a model without chat template, a text that is continued. What counts of
it is the beginning that all conversations share which start with it, in whole blocks. The blocks are found by their
tokens as any others are: a conversation that begins otherwise is computed, never answered wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from edgeai.engine.config import EngineSettings
from edgeai.engine.prefix_cache import Block, chain_keys
from edgeai.errors import InvalidInput, OutOfMemory
from edgeai.model import Model, block_format, default_settings, require_decoder
from edgeai.package.kv_blocks import BlockFormat
from edgeai.package.manifest import Manifest, WarmBlocks
from edgeai.package.package import Package
from edgeai.package.writer import PackageWriter
from edgeai.progress import Progress, silent

# What users may begin with: tokenizers may merge it with what stands before.
BEGINNINGS = ("Hello", "why", "\n\nDear", " a", "7 days", "(see", "日本", "é", "")
DATES = (datetime(2001, 1, 31, 23, 59, 58), datetime(2038, 12, 6, 1, 2, 3))


def read_prompts(paths: Iterable[Path]) -> list[str]:
    """The prompts in files, without the newlines at their ends, as a shell's `$(cat FILE)` has them.

    Raises `InvalidInput` for a file that cannot be read, is not UTF-8 or is empty.
    """
    prompts = []
    for path in paths:
        try:
            prompts.append(path.read_text(encoding="utf-8").rstrip("\n"))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"the prompt {path} cannot be read: {error}", "name a text file in UTF-8") from error
        if not prompts[-1].strip():
            raise InvalidInput(f"the prompt {path} is empty", "write the system prompt into it")
    return prompts


def warm(
    package: Package, prompts: Sequence[str], settings: EngineSettings | None = None, progress: Progress = silent
) -> Package:
    """Compute `prompts` and put the package in its place again, with their blocks and no others; none: without any.

    Raises `InvalidInput` for a prompt that is too short or too long and for models that do not write text,
    `OutOfMemory`, `OutOfDisk`; the package is then as before.
    """
    require_decoder(package.manifest)
    cold = replace(package, manifest=without_warm(package.manifest))  # or blocks that are there would be taken again
    if not prompts:
        return _publish(cold, package.path, None, {})
    settings = replace(settings or default_settings(package.manifest, max_rows=1), prompt_weights=False)
    blocks: dict[bytes, Block] = {}
    lengths = []
    with Model.load(cold, settings) as model:
        for number, prompt in enumerate(prompts):
            progress("prompts", number, len(prompts))
            tokens = shared_beginning(model, prompt)
            lengths.append(len(tokens))
            blocks |= computed(model, tokens)
    form = block_format(cold, settings)
    described = WarmBlocks(
        file=f"warm-{form.dtype.name}-{settings.block_tokens}.kv",
        model_digest=cold.model_digest,
        kv_type=form.dtype.name,
        block_tokens=settings.block_tokens,
        prompts=tuple(lengths),
    )
    return _publish(cold, package.path, (described, form), blocks)


def shared_beginning(model: Model, prompt: str) -> list[int]:
    """The tokens, in whole blocks, that every conversation with this system prompt begins with, on whatever day.

    Raises `InvalidInput` when they are less than a block, or leave no room for an answer.
    """
    if model.template is None:
        variants = [model.encode_text(prompt + beginning) for beginning in BEGINNINGS]
    else:
        variants = [_conversation(model, prompt, beginning, date) for beginning in BEGINNINGS for date in DATES]
    block, context = model.engine.settings.block_tokens, model.context_length
    tokens = common_prefix(variants)
    if len(tokens) >= context:
        raise InvalidInput(f"the prompt has {len(tokens)} tokens or more; the context has {context}", "shorten it")
    if len(tokens) < block:
        raise InvalidInput(
            f"conversations with this prompt share only {len(tokens)} tokens; the least that can be kept is {block}",
            "a prompt so short is read in a moment; a chat template that begins with the date shares nothing",
        )
    return tokens[: len(tokens) // block * block]


def common_prefix(variants: Sequence[Sequence[int]]) -> list[int]:
    """What all of them begin with."""
    shared = []
    for column in zip(*variants, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return shared


def computed(model: Model, tokens: Sequence[int]) -> dict[bytes, Block]:
    """The blocks of `tokens`, a whole number of them, by their keys. Raises `OutOfMemory`."""
    for _ in model.stream(tokens, model.default_params(max_tokens=1, temperature=0.0)):
        pass
    cache = model.engine.cache
    keys = list(chain_keys(tokens, cache.block_tokens))
    blocks = {key: block for key in cache.match(keys) if (block := cache.get(key)) is not None}
    if len(blocks) < len(keys):
        raise OutOfMemory(f"the KV budget does not hold a prompt of {len(tokens)} tokens twice", "free some memory")
    return blocks


def without_warm(manifest: Manifest) -> Manifest:
    """The manifest of the same package without precomputed prompts."""
    warm_files = {blocks.file for blocks in manifest.warm}
    files = {name: entry for name, entry in manifest.files.items() if name not in warm_files}
    return manifest.model_copy(update={"files": files, "warm": ()})


def _conversation(model: Model, system: str, user: str, date: datetime) -> list[int]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return model.encode_chat(messages, strftime_now=date.strftime)


def _publish(
    cold: Package, target: Path, described: tuple[WarmBlocks, BlockFormat] | None, blocks: dict[bytes, Block]
) -> Package:
    with PackageWriter(target) as writer:
        writer.adopt(cold)
        if described is None:
            return writer.publish(cold.manifest)
        warm_blocks, form = described
        writer.write(warm_blocks.file, _chunks(form, blocks), size=len(blocks) * form.block_bytes)
        return writer.publish(cold.manifest.model_copy(update={"warm": (warm_blocks,)}))


def _chunks(form: BlockFormat, blocks: dict[bytes, Block]) -> Iterator[bytes | memoryview]:
    for key, block in blocks.items():
        yield from form.pack(key, block)
