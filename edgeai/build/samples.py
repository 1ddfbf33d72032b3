"""A few answers of a new package beside its source's own, decoded greedily, for the quality card.

The source's answer is that of the plain numpy forward pass, token for token. One pass a token would take too long, so
the package drafts what comes next and each pass checks a whole draft, as in speculative decoding (Leviathan et al.
2023, greedy case): there are as many passes as the two disagree, and the float model is never in memory. How much is
answered follows from the model alone, never from a clock, so that a build can be repeated.

Where the two likeliest tokens are nearly equal, a small model's answer may turn out another one altogether: the figures
of the card say more than its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgeai.architectures.blocks import LoadTensor
from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.registry import reference_logits
from edgeai.onnx_session import OnnxSession
from edgeai.package.manifest import Sample
from edgeai.progress import Progress
from edgeai.sources.weights import TokenizerFiles
from edgeai.text.chat_template import ChatTemplate
from edgeai.text.prompt import encode_chat
from edgeai.text.tokenizer import Tokenizer

QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about rain.",
    "I have 14 eggs and buy 10 more. How many eggs do I have?",
)
ANSWER_TOKENS = 16
CONTEXT = 256  # tokens; a template that is longer than that has no sample
MOST_PASSES = 8  # of numpy for one answer, which is cut where they end
LARGEST_PACKAGE = 4_000_000_000

Continue = Callable[[Sequence[int], int], list[int]]  # at most so many of the likeliest tokens after these


def samples(
    graph: Path,
    config: DecoderConfig,
    files: TokenizerFiles,
    original: LoadTensor,
    parameters: int,
    progress: Progress,
    *,
    ask_source: bool = False,
) -> tuple[Sample, ...]:
    """Answers to `QUESTIONS`, none of a very large model; the source's as well where it is asked, which takes long."""
    if parameters > LARGEST_PACKAGE:
        return ()
    vocabulary = config.vocab_size
    tokenizer = Tokenizer(files.tokenizer_json.decode(), bos_token_id=files.bos_token_id, rows=vocabulary)
    session, ends = OnnxSession(graph, threads=2), frozenset(files.eos_token_ids)
    found = []
    for number, question in enumerate(QUESTIONS):
        progress("sample answers", number, len(QUESTIONS))
        prompt = _prompt(question, tokenizer, files)
        if len(prompt) + ANSWER_TOKENS > min(CONTEXT, config.context_length):
            continue

        def package(ids: Sequence[int], limit: int) -> list[int]:
            return continuation(session, config, ids, limit, ends)

        answer = package(prompt, ANSWER_TOKENS)
        source = None
        if ask_source:
            source = source_answer(config, original, prompt, package, ends)
        found.append(
            Sample(
                prompt=question,
                answer=tokenizer.decode(answer).strip(),
                source_answer=None if source is None else tokenizer.decode(source).strip(),
            )
        )
    return tuple(found)


def source_answer(
    config: DecoderConfig,
    original: LoadTensor,
    prompt: Sequence[int],
    draft: Continue,
    ends: frozenset[int],
    limit: int = ANSWER_TOKENS,
) -> list[int]:
    """The greedy answer of the plain numpy forward pass, as much of it as `MOST_PASSES` find."""
    answer: list[int] = []
    for _ in range(MOST_PASSES):
        known = [*prompt, *answer]
        drafted = draft(known, limit - len(answer))
        logits = reference_logits(config, original, [*known, *drafted])
        for place, token in enumerate(logits[len(known) - 1 :].argmax(-1).tolist()):
            if token in ends:
                return answer
            answer.append(token)
            if len(answer) == limit:
                return answer
            if place >= len(drafted) or token != drafted[place]:
                break
    return answer


def continuation(
    session: OnnxSession, config: DecoderConfig, prompt: Sequence[int], limit: int, ends: frozenset[int]
) -> list[int]:
    """The likeliest continuation of `prompt` by the graph, up to `limit` tokens, without the one that ends it."""
    shape = (1, config.num_kv_heads, len(prompt) + limit, config.head_size)
    names = [f"{layer}.{part}" for layer in range(config.num_layers) for part in ("key", "value")]
    cache = {name: np.zeros(shape, np.float32) for name in names}
    logits = np.empty((1, 1, config.vocab_size), np.float32)
    output: list[int] = []
    new, done = list(prompt), 0
    while len(output) < limit:
        binding = session.binding()
        binding.input("input_ids", np.array([new], np.int64))
        binding.input("seqlens_k", np.array([done + len(new) - 1], np.int32))
        binding.input("query_seqlens", np.array([len(new)], np.int32))
        binding.input("total_sequence_length", np.array(done + len(new), np.int32))
        binding.input("logit_index", np.array([len(new) - 1]))
        for name, values in cache.items():
            binding.in_place(f"past.{name}", f"present.{name}", values)
        binding.output("logits", logits)
        session.run_bound(binding)
        done += len(new)
        token = int(logits.argmax())
        if token in ends:
            break
        output.append(token)
        new = [token]
    return output


def _prompt(question: str, tokenizer: Tokenizer, files: TokenizerFiles) -> list[int]:
    """As a conversation where the model has a template; else as a text to be continued."""
    if files.chat_template is None:
        return tokenizer.encode(f"Question: {question}\nAnswer:", add_bos=files.add_bos)
    template = ChatTemplate(files.chat_template, files.special_tokens)
    return encode_chat(tokenizer, template, [{"role": "user", "content": question}], add_bos=files.add_bos)
