"""A chat as token ids: messages shielded, rendered by the template, encoded as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeai.text.chat_template import ChatTemplate
from edgeai.text.tokenizer import Tokenizer


def encode_chat(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_bos: bool = False,
    most: int | None = None,
    **extra: Any,
) -> list[int]:
    """Token ids of the prompt for `messages`.

    Equal to encoding the rendered text with its control tokens, except that control tokens spelled out inside
    messages, tools or `extra` are ordinary text. BOS is added where `add_bos` says so and the template did not.
    Raises `InvalidInput` when the template refuses the messages, `ContextLengthExceeded` for far more than `most`
    tokens.
    """
    text = template.render(
        tokenizer.shield(messages),
        add_generation_prompt=add_generation_prompt,
        tools=tokenizer.shield(tools),
        **tokenizer.shield(extra),
    )
    if most is not None:
        tokenizer.check_length(text, most, shielded=True)
    return tokenizer.encode_shielded(text, add_bos=add_bos)
