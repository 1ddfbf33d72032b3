"""Grammars compiled for one tokenizer, one at a time, in a thread of their own; those used last are kept.

llguidance lets Python go on while it compiles, and its limits bound what a grammar may take: about half a second and
some tens of megabytes for the worst that were found (tests/grammar/test_limits.py).
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

from edgeai.errors import InvalidInput, Overloaded
from edgeai.grammar.constraint import CompiledGrammar, problem
from edgeai.grammar.spec import GrammarSpec
from edgeai.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

KEPT = 64  # compiled grammars
MAX_WAITING = 16  # to be compiled
HINT = "docs/structured-output.md says what is supported"


class GrammarCompiler:
    """Compiles for one tokenizer. What llguidance needs to know of it is put together at the first grammar."""

    def __init__(self, tokenizer: Tokenizer, eos_token_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._eos = tuple(eos_token_ids)
        self._worker = ThreadPoolExecutor(1, "edgeai-grammar")
        self._waiting = 0
        self._lock = threading.Lock()  # of the number above and the grammars below
        self._kept: OrderedDict[bytes, CompiledGrammar] = OrderedDict()
        self._vocabulary: LLTokenizer | None = None  # the worker's own

    def submit(self, spec: GrammarSpec) -> Future[CompiledGrammar]:
        """The compiled grammar.

        Raises `InvalidInput` for one that is too long, `Overloaded` when too many are waiting. The future raises
        `InvalidInput` for what is wrong, not supported, without any text that would do, or too much work.
        """
        documents = spec.documents()
        key = hashlib.sha256("\0".join(documents).encode("utf-8", "surrogatepass")).digest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                ready: Future[CompiledGrammar] = Future()
                ready.set_result(self._kept[key])
                return ready
            if self._waiting >= MAX_WAITING:
                raise Overloaded(f"{self._waiting} grammars are waiting to be compiled", "try again soon")
            self._waiting += 1
        pending = self._worker.submit(self._compile, key, spec)
        pending.add_done_callback(self._done)
        return pending

    def _compile(self, key: bytes, spec: GrammarSpec) -> CompiledGrammar:
        grammar = CompiledGrammar(self._matcher(spec), self._eos, self._tokenizer.vocab_size, spec.param)
        with self._lock:
            self._kept[key] = grammar
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return grammar

    def _done(self, _pending: Future[CompiledGrammar]) -> None:
        """Compiled, failed, or given up by who waited for it."""
        with self._lock:
            self._waiting -= 1

    def _matcher(self, spec: GrammarSpec) -> LLMatcher:
        from llguidance import LLMatcher

        if not self._eos:
            raise InvalidInput("this model has no end token, and so no way to end such an answer", param=spec.param)
        if self._vocabulary is None:
            self._vocabulary = _vocabulary(self._tokenizer, self._eos)
        what = ""
        for document in spec.documents():
            matcher = LLMatcher(self._vocabulary, document, limits=_limits(), log_level=0)
            matcher.compute_bitmask()  # the costly first one; copies of the matcher know it
            if not matcher.is_error():
                return matcher
            what = problem(matcher)
        for inner in spec.named.values():
            self._matcher(inner)  # raises for the part that is at fault
        raise InvalidInput(f"this grammar cannot be used: {what}", HINT, param=spec.param)


def _limits() -> LLParserLimits:
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=500_000, max_lexer_states=20_000, max_grammar_size=100_000, verbose_errors=False
    )


class _Vocabulary:
    """What llguidance asks of a tokenizer: the bytes of each token, and how the model would cut forced text."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, eos: int) -> None:
        self.eos_token_id = eos
        self.tokens = tokenizer.all_bytes()
        self.special_token_ids = sorted(tokenizer.control_tokens)
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        """Token ids of text in the middle of a line, where SentencePiece puts no space in front."""
        ids = self._tokenizer.encode(text)
        if self._spelled(ids) == text.encode():
            return ids
        ids = self._tokenizer.encode(f"\n{text}")
        at = next((at for at in range(len(ids)) if self._spelled(ids[at:]) == text.encode()), None)
        return self._longest(text.encode()) if at is None else ids[at:]

    def _spelled(self, ids: Sequence[int]) -> bytes:
        return b"".join(self.tokens[token] for token in ids)

    def _longest(self, text: bytes) -> list[int]:
        """The longest tokens from the left on, as far as there are any: for tokenizers that change the text."""
        ids: list[int] = []
        at = 0
        while at < len(text):
            sizes = range(min(self._longest_token, len(text) - at), 0, -1)
            token = next((self._ids[text[at : at + size]] for size in sizes if text[at : at + size] in self._ids), None)
            if token is None:
                break
            ids.append(token)
            at += len(self.tokens[token])
        return ids

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {spelled: token for token, spelled in enumerate(self.tokens) if token not in self.special_token_ids}

    @cached_property
    def _longest_token(self) -> int:
        return max(map(len, self._ids))


def _vocabulary(tokenizer: Tokenizer, eos: Sequence[int]) -> LLTokenizer:
    from llguidance import LLTokenizer

    wrapped = _Vocabulary(tokenizer, eos[0])
    return LLTokenizer(wrapped, n_vocab=tokenizer.vocab_size, eos_token=list(eos))  # type: ignore[arg-type]
