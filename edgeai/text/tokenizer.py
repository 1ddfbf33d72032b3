"""Text to token ids and back, over the `tokenizers` library, with control tokens kept out of reach of user text.

Three ways to encode, which differ only in text that spells a control token such as ``<|im_end|>``:

- ``encode(text, parse_special=True)``: it is that token (trusted prompts);
- ``encode(text, parse_special=False)``: it is ordinary text;
- ``encode_shielded(text)``: it is that token, unless `shield` marked it as ordinary text before. This is how chat
  prompts are built: messages are shielded, rendered by the template and encoded as a whole, so that words and merges
  across the borders of messages come out exactly as from the plain text, and no message can end its own turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import tokenizers

from edgeai.errors import ContextLengthExceeded, InvalidInput, PackageError
from edgeai.text.token_bytes import TokenBytes

# A noncharacter (Unicode 23.7: not for interchange) that makes the character after it ordinary, as a backslash does.
SHIELD = "\ufdd0"
LONG_TEXT = 4096  # characters
PIECE = 1 << 15  # characters that are encoded at a time to count the tokens of a text that may be far too long


class Tokenizer:
    """A byte-level or SentencePiece tokenizer. Safe to share between threads: it does not change."""

    def __init__(self, document: str | bytes, *, bos_token_id: int | None = None, rows: int = 0) -> None:
        """Build from the text of a tokenizer.json. Raises `PackageError` when it is damaged or of another kind.

        A model whose token table is padded has more `rows` than there are tokens; what they stand for is nothing.
        """
        self._backend = _build(document)
        self.bos_token_id = bos_token_id
        added = self._backend.get_added_tokens_decoder()
        self._swallow_before = frozenset(token_id for token_id, token in added.items() if token.lstrip)
        self._swallow_after = frozenset(token_id for token_id, token in added.items() if token.rstrip)
        self._control = {token.content: token_id for token_id, token in added.items() if token.special}
        self._control_ids = frozenset(self._control.values())
        contents = {token_id: token.content for token_id, token in added.items()}
        self._bytes = TokenBytes(_decoder(self._backend), self._backend.id_to_token, contents)
        self._size = _vocab_size(self._backend, rows)
        if bos_token_id is not None and not 0 <= bos_token_id < self.vocab_size:
            raise PackageError(f"BOS token {bos_token_id} is outside the {self.vocab_size} tokens")
        names = "|".join(re.escape(name) for name in sorted(self._control, key=len, reverse=True)) or "(?!)"
        self._named = re.compile(f"(?P<control>{names})")
        self._named_or_shielded = re.compile(f"(?s:{SHIELD}(?P<text>.?))|(?P<control>{names})")
        self._exposed = re.compile(f"(?=(?:{names}|{SHIELD}))")
        self._beginnings = frozenset(name[:end] for name in self._control for end in range(1, len(name)))

    @classmethod
    def load(cls, path: Path, *, bos_token_id: int | None = None, rows: int = 0) -> Tokenizer:
        """Read a tokenizer.json; `bos_token_id` is what `add_bos` puts in front."""
        try:
            document = path.read_bytes()
        except OSError as error:
            raise PackageError(f"cannot read the tokenizer {path}: {error}", "build the package again") from error
        return cls(document, bos_token_id=bos_token_id, rows=rows)

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added tokens and rows without one included."""
        return self._size

    @property
    def control_tokens(self) -> frozenset[int]:
        """Ids that structure a prompt and are never shown: end of turn, begin of text, ..."""
        return self._control_ids

    def control_id(self, name: str) -> int | None:
        """The id of the control token of this name, if there is one."""
        return self._control.get(name)

    def check_length(self, text: str, most: int, *, shielded: bool = False) -> None:
        """Raise `ContextLengthExceeded` for a text of far more than `most` tokens, without encoding all of it at once.

        Encoding takes some hundred bytes of memory for each token, which a text of megabytes would multiply. Cutting a
        text changes tokens only around the cuts, so that twice the limit, counted in pieces, is beyond doubt.
        `shielded` is for texts that `encode_shielded` is for.
        """
        if len(text) <= max(PIECE, 2 * most):
            return
        encode = self.encode_shielded if shielded else self.encode
        counted = 0
        for start in range(0, len(text), PIECE):
            counted += len(encode(text[start : start + PIECE]))
            if counted > 2 * most:
                raise ContextLengthExceeded(
                    f"the prompt has more than {counted // 2} tokens; the context holds {most}",
                    "shorten the prompt",
                    param="messages",
                )

    def encode(self, text: str, *, add_bos: bool = False, parse_special: bool = False) -> list[int]:
        """Token ids of `text`. Raises `InvalidInput` for text that is not Unicode (lone surrogates).

        With `parse_special`, text that spells a control token is that token; without, it is encoded as text.
        """
        ids = self._encode_runs(text, self._named) if parse_special else self._encode_text(text)
        return self._leading(add_bos) + ids

    def shield(self, value: Any) -> Any:
        """A copy of a string, or of all strings in lists and mappings, in which control tokens are marked as text.

        The beginning of a control token at the end of a string is marked too: a template may put strings together.
        """
        if isinstance(value, str):
            return self._shield_text(value)
        if isinstance(value, dict):
            return {self.shield(key): self.shield(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.shield(item) for item in value]
        return value

    def encode_shielded(self, text: str, *, add_bos: bool = False) -> list[int]:
        """Token ids of text made of trusted parts and parts that went through `shield`.

        `add_bos` puts BOS in front unless the text starts with it.
        """
        ids = self._encode_runs(text, self._named_or_shielded if SHIELD in text else self._named)
        return ids if ids[:1] == [self.bos_token_id] else self._leading(add_bos) + ids

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for; of a control token its name. Raises `InvalidInput` for an id out of range."""
        if not 0 <= token_id < self._size:
            raise InvalidInput(f"token {token_id} is outside the {self._size} tokens of the vocabulary")
        return self._bytes[token_id]

    def all_bytes(self) -> list[bytes]:
        """`token_bytes` of every id."""
        return self._bytes.table(self._size)

    def sampled_bytes(self, token_id: int) -> bytes:
        """The bytes of what a model gave: heads are often padded beyond the vocabulary, and such an id says nothing."""
        return self._bytes[token_id]

    def decode(self, ids: Sequence[int], *, skip_control: bool = True) -> str:
        """Text of `ids`. Bytes that are not UTF-8 become U+FFFD; control tokens are left out unless asked for."""
        shown = (self.token_bytes(i) for i in ids if not (skip_control and i in self._control_ids))
        return b"".join(shown).decode("utf-8", errors="replace")

    def _leading(self, add_bos: bool) -> list[int]:
        return [self.bos_token_id] if add_bos and self.bos_token_id is not None else []

    def _shield_text(self, text: str) -> str:
        """Put a shield before each control token (overlapping ones too), each shield, and a token begun at the end."""
        marks = {match.start() for match in self._exposed.finditer(text)}
        longest = max(map(len, self._beginnings), default=0)
        marks |= {
            len(text) - size for size in range(1, min(longest, len(text)) + 1) if text[-size:] in self._beginnings
        }
        bounds = [0, *sorted(marks), len(text)]
        return SHIELD.join(text[start:end] for start, end in pairwise(bounds))

    def _encode_text(self, text: str) -> list[int]:
        try:
            if len(text) <= LONG_TEXT:
                ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
            else:
                # `encode` keeps the interpreter's lock for seconds of a long text; a batch lets other threads run.
                ids = self._backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
        except (TypeError, UnicodeEncodeError) as error:
            raise InvalidInput("the text is not valid Unicode: it holds half of a surrogate pair") from error
        return ids

    def _encode_runs(self, text: str, pattern: re.Pattern[str]) -> list[int]:
        """Encode the text between control tokens, its shields removed, and the control tokens by id."""
        ids: list[int] = []
        before: int | None = None
        for run, control in self._runs(text, pattern):
            kept = self._without_swallowed(run, before, control)
            ids += self._encode_text(kept) if kept else []
            ids += [] if control is None else [control]
            before = control
        return ids

    def _without_swallowed(self, run: str, before: int | None, after: int | None) -> str:
        """A run without the whitespace that belongs to the control tokens around it (Phi-3's have such)."""
        run = run.lstrip() if before in self._swallow_after else run
        return run.rstrip() if after in self._swallow_before else run

    def _runs(self, text: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, int | None]]:
        """Runs of ordinary text, each with the control token that ends it (None at the end)."""
        parts: list[str] = []
        at = 0
        for match in pattern.finditer(text):
            parts.append(text[at : match.start()])
            at = match.end()
            if match["control"] is None:
                parts.append(match["text"])
            else:
                yield "".join(parts), self._control[match["control"]]
                parts = []
        yield "".join([*parts, text[at:]]), None


def _build(document: str | bytes) -> tokenizers.Tokenizer:
    """The library's tokenizer, told to take control tokens as text: they are cut out here, where shields are known."""
    try:
        backend = tokenizers.Tokenizer.from_buffer(document.encode() if isinstance(document, str) else document)
    except Exception as error:  # the library raises plain Exception
        raise PackageError(f"the tokenizer is damaged: {error}", "build the package again") from error
    backend.encode_special_tokens = True
    return backend


def _decoder(backend: tokenizers.Tokenizer) -> Any:
    """The decoder as it is in tokenizer.json; parsing the whole document again would take as long as loading it."""
    return None if backend.decoder is None else json.loads(backend.decoder.__getstate__())


def _vocab_size(backend: tokenizers.Tokenizer, rows: int) -> int:
    """Rows of the model's table, or one more than the highest id, where that is more or the table is not known."""
    if rows >= backend.get_vocab_size(with_added_tokens=True):
        return rows
    return max(rows, 1 + max(backend.get_vocab(with_added_tokens=True).values(), default=-1))
