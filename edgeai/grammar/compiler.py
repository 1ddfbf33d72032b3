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
from typing import TYPE_CHECKING

from edgeai.errors import InvalidInput, Overloaded
from edgeai.grammar.constraint import CompiledGrammar, problem
from edgeai.grammar.ending import Closers, EndFinder
from edgeai.grammar.spec import GrammarSpec
from edgeai.grammar.spelling import Spelling
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
        self._vocabulary: _Vocabulary | None = None  # the worker's own

    def submit(self, spec: GrammarSpec) -> Future[CompiledGrammar]:
        """The compiled grammar.

        Raises `InvalidInput` for one that is too long, `Overloaded` when too many are waiting. The future raises
        `InvalidInput` for what is wrong, not supported, without any text that would do, or too much work.
        """
        documents = spec.documents()
        key = hashlib.sha256("\0".join((*documents, *spec.markers)).encode("utf-8", "surrogatepass")).digest()
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
        if not self._eos:
            raise InvalidInput("this model has no end token, and so no way to end such an answer", param=spec.param)
        if self._vocabulary is None:
            self._vocabulary = _Vocabulary(self._tokenizer, self._eos)
        ends = EndFinder(self._vocabulary.closers, [self._vocabulary.marker(text) for text in spec.markers])
        grammar = CompiledGrammar(self._matcher(spec, self._vocabulary.matched), ends, spec.param)
        with self._lock:
            self._kept[key] = grammar
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return grammar

    def _done(self, _pending: Future[CompiledGrammar]) -> None:
        """Compiled, failed, or given up by who waited for it."""
        with self._lock:
            self._waiting -= 1

    def _matcher(self, spec: GrammarSpec, vocabulary: LLTokenizer) -> LLMatcher:
        from llguidance import LLMatcher

        what = ""
        for document in spec.documents():
            matcher = LLMatcher(vocabulary, document, limits=_limits(), log_level=0)
            matcher.compute_bitmask()  # the costly first one; copies of the matcher know it
            if not matcher.is_error():
                return matcher
            what = problem(matcher)
        for inner in spec.named.values():
            self._matcher(inner, vocabulary)  # raises for the part that is at fault
        raise InvalidInput(f"this grammar cannot be used: {what}", HINT, param=spec.param)


def _limits() -> LLParserLimits:
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=500_000, max_lexer_states=20_000, max_grammar_size=100_000, verbose_errors=False
    )


class _Vocabulary:
    """The tokens of a model as llguidance knows them, and as ends are made of them."""

    def __init__(self, tokenizer: Tokenizer, eos: Sequence[int]) -> None:
        from llguidance import LLTokenizer

        self._tokenizer = tokenizer
        spelling = Spelling(tokenizer.all_bytes(), tokenizer.control_tokens)
        self._cutter = _Cutter(tokenizer, spelling, eos[0])
        self.closers = Closers(spelling, eos)
        self.matched = LLTokenizer(self._cutter, n_vocab=tokenizer.vocab_size, eos_token=list(eos))  # type: ignore[arg-type]

    def marker(self, text: str) -> list[int]:
        """The tokens of a text that is one token where that is a control token."""
        token = self._tokenizer.control_id(text)
        return self._cutter(text) if token is None else [token]


class _Cutter:
    """What llguidance asks of a tokenizer: the bytes of each token, and how the model would cut forced text."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, spelling: Spelling, eos: int) -> None:
        self.eos_token_id = eos
        self.tokens = spelling.tokens
        self.special_token_ids = sorted(spelling.special)
        self._spelling = spelling
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        """Token ids of text in the middle of a line, where SentencePiece puts no space in front."""
        ids = self._tokenizer.encode(text)
        spelled = self._spelling.text
        if spelled(ids) == text.encode():
            return ids
        ids = self._tokenizer.encode(f"\n{text}")
        at = next((at for at in range(len(ids)) if spelled(ids[at:]) == text.encode()), None)
        return self._spelling.cut(text.encode()) if at is None else ids[at:]
