"""Tokens that are control tokens whatever type a file gives them, by their text (after llama-vocab.cpp)."""

from __future__ import annotations

# These end a reply, whatever the metadata says.
END_TOKENS = frozenset(
    {
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "</s>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<｜end▁of▁sentence｜>",
        "<end_of_utterance>",
    }
)

# These end nothing in a chat: the borders of a gap that a code model fills, and of the files around it.
GAP_TOKENS = frozenset(
    {
        "<|fim_pad|>",
        "<fim-pad>",
        "<fim_pad>",
        "<|fim_repo|>",
        "<|repo_name|>",
        "<fim-repo>",
        "<reponame>",
        "<|file_sep|>",
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|fim_middle|>",
        "<fim-prefix>",
        "<fim-suffix>",
        "<fim-middle>",
        "<fim_prefix>",
        "<fim_suffix>",
        "<fim_middle>",
        "<｜fim▁begin｜>",
        "<｜fim▁hole｜>",
        "<｜fim▁end｜>",
        "<|code_prefix|>",
        "<|code_suffix|>",
        "<|code_middle|>",
    }
)

CONTROL_TOKENS = END_TOKENS | GAP_TOKENS

# Where this token is, "</s>" is an ordinary word (Gemma 4).
ORDINARY_END = "<|tool_response>"
