"""Log probabilities in the two shapes of the OpenAI API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from edgeai.engine.request import FinishReason, TokenLogprob, TokenOutput
from edgeai.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from edgeai.model import Chunk

LEAST = -9999.0  # JSON has no infinity; OpenAI's API uses this number too


class ShownTokens:
    """The tokens of one sequence that its text accounts for: not those of a stop string, and no end token.

    Tokens are held back as long as their text is, because it may yet become a stop string.
    """

    def __init__(self) -> None:
        self._held: list[TokenOutput] = []

    def push(self, chunk: Chunk) -> list[TokenOutput]:
        """The tokens that are certain with this chunk."""
        self._held += [token for token in chunk.tokens if not token.is_end]
        cut = chunk.finish_reason is FinishReason.STOP and chunk.tokens[-1].finish_reason is not FinishReason.STOP
        if not chunk.text and (cut or chunk.finish_reason is None):
            return []
        shown, self._held = self._held, []
        return shown


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    r"""A token by itself; bytes that are no character are written as `\xe2`, so that different tokens differ."""
    return tokenizer.sampled_bytes(token_id).decode("utf-8", errors="backslashreplace")


def chat_logprobs(tokenizer: Tokenizer, tokens: Iterable[TokenOutput]) -> dict[str, Any]:
    """`choices[].logprobs` of a chat completion."""
    return {"content": [_chat_token(tokenizer, token) for token in tokens], "refusal": None}


def _chat_token(tokenizer: Tokenizer, token: TokenOutput) -> dict[str, Any]:
    top = [_chat_entry(tokenizer, entry) for entry in token.top_logprobs]
    return {**_chat_entry(tokenizer, _chosen(token)), "top_logprobs": top}


def _chat_entry(tokenizer: Tokenizer, entry: TokenLogprob) -> dict[str, Any]:
    return {
        "token": token_text(tokenizer, entry.token_id),
        "logprob": max(entry.logprob, LEAST),
        "bytes": list(tokenizer.sampled_bytes(entry.token_id)),
    }


class CompletionLogprobs:
    """`choices[].logprobs` of text completions; offsets count characters from the start of the generated text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._offset = 0

    def push(self, tokens: Iterable[TokenOutput]) -> dict[str, Any]:
        """The entries for the next tokens."""
        result: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token in tokens:
            chosen = _chosen(token)
            text = token_text(self._tokenizer, chosen.token_id)
            result["tokens"].append(text)
            result["token_logprobs"].append(max(chosen.logprob, LEAST))
            result["top_logprobs"].append(self._top(chosen, token.top_logprobs))
            result["text_offset"].append(self._offset)
            self._offset += len(text)
        return result

    def _top(self, chosen: TokenLogprob, top: Iterable[TokenLogprob]) -> dict[str, float]:
        """The most likely tokens, and the chosen one even if it is not among them."""
        return {token_text(self._tokenizer, entry.token_id): max(entry.logprob, LEAST) for entry in (*top, chosen)}


def _chosen(token: TokenOutput) -> TokenLogprob:
    return token.logprob or TokenLogprob(token.token_id, LEAST)
