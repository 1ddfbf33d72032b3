"""Calibration text as token ids: what a model reads while its weights are rounded.

The texts beside this package are written for this purpose or sampled from a model with an open licence; none of them
is used to measure quality. Chats are put into the model's own template.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeai.errors import InvalidInput
from edgeai.sources.weights import TokenizerFiles
from edgeai.text.chat_template import ChatTemplate
from edgeai.text.prompt import encode_chat
from edgeai.text.tokenizer import Tokenizer

FOLDER = Path(__file__).parent.parent / "data" / "calibration"
SEGMENT = 256  # tokens read with one another as context
LEAST = 32  # shorter rests of a text are left out


def calibration_segments(files: TokenizerFiles, tokens: int, own: Path | None = None) -> list[list[int]]:
    """Segments of at most `SEGMENT` tokens, together about `tokens`: the same mixture of texts whatever their number.

    `own` is a text file to be used in place of the texts that come with edgeai. Raises `InvalidInput` where it cannot
    be read or is too short.
    """
    tokenizer = Tokenizer(files.tokenizer_json.decode(), bos_token_id=files.bos_token_id)
    texts = [tokenizer.encode(_read(own))] if own else [*_plain(tokenizer), _chats(tokenizer, files)]
    chosen: list[list[int]] = []
    for segment in _interleaved([_cut(ids, files) for ids in texts]):
        if sum(map(len, chosen)) >= tokens:
            break
        chosen.append(segment)
    if not chosen:
        raise InvalidInput(f"{own or FOLDER} holds less than {LEAST} tokens", "calibrate with a longer text")
    return chosen


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the calibration text {path} cannot be read: {error}", "name a UTF-8 text file") from error


def _plain(tokenizer: Tokenizer) -> Iterator[list[int]]:
    for path in sorted(FOLDER.glob("*.txt")):
        yield tokenizer.encode(path.read_text(encoding="utf-8"))


def _chats(tokenizer: Tokenizer, files: TokenizerFiles) -> list[int]:
    """All chats, one after the other; as plain text for a model without a template."""
    chats = json.loads((FOLDER / "chat.json").read_text(encoding="utf-8"))
    ids: list[int] = []
    for chat in chats:
        messages = [{"role": role, "content": content} for role, content in chat]
        ids += _chat(tokenizer, files, messages)
    return ids


def _chat(tokenizer: Tokenizer, files: TokenizerFiles, messages: list[dict[str, str]]) -> list[int]:
    if files.chat_template is not None:
        template = ChatTemplate(files.chat_template, files.special_tokens)
        try:
            return encode_chat(tokenizer, template, messages, add_generation_prompt=False)
        except InvalidInput:  # templates may refuse system prompts
            messages = [message for message in messages if message["role"] != "system"]
            return encode_chat(tokenizer, template, messages, add_generation_prompt=False)
    return tokenizer.encode("\n".join(message["content"] for message in messages) + "\n")


def _cut(ids: Sequence[int], files: TokenizerFiles) -> list[list[int]]:
    """Segments of a text, each led by BOS where the model is used to it."""
    lead = [files.bos_token_id] if files.add_bos and files.bos_token_id is not None else []
    step = SEGMENT - len(lead)
    pieces = [lead + list(ids[start : start + step]) for start in range(0, len(ids), step)]
    return [piece for piece in pieces if len(piece) >= LEAST]


def _interleaved(texts: Sequence[Sequence[list[int]]]) -> Iterator[list[int]]:
    """All segments, ordered by how far into their own text they are, so that every prefix is a fair mixture."""
    places = [(at / len(text), number, at) for number, text in enumerate(texts) for at in range(len(text))]
    for _, number, at in sorted(places):
        yield texts[number][at]
