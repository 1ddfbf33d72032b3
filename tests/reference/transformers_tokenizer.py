"""What transformers' own tokenizers make of texts, for tests. Runs in an environment with transformers.

usage: transformers_tokenizer.py CASES.json ANSWERS.json

`CASES.json` has `folders`, `texts` and `messages`. For each folder the answer has the ids of every text, encoded as
plain use does (special tokens put in front, and found in the text), those of the conversation, and the special tokens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer


def answer(folder: str, texts: list[str], messages: list[dict[str, str]]) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = None
    if tokenizer.chat_template:
        chat = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
    return {
        "ids": [tokenizer(text)["input_ids"] for text in texts],
        "chat": chat,
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "special": {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)},
    }


def main(cases: str, answers: str) -> None:
    asked = json.loads(Path(cases).read_text(encoding="utf-8"))
    made = {folder: answer(folder, asked["texts"], asked["messages"]) for folder in asked["folders"]}
    Path(answers).write_text(json.dumps(made), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
