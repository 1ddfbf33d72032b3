"""Tokenizers of checkpoint folders against transformers: where BOS goes, what is special, how words are cut.

The vocabulary is that of SmolLM2, real; the files around it are those of several families.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeai.sources.folder_tokenizer import read_tokenizer
from edgeai.sources.gguf import GGUFSource
from edgeai.text.chat_template import ChatTemplate
from edgeai.text.prompt import encode_chat
from edgeai.text.tokenizer import Tokenizer
from tests.fixtures.checkpoints import TEMPLATE
from tests.fixtures.texts import corpus

pytestmark = pytest.mark.reference

VARIABLE = "EDGEAI_REFERENCE_PYTHON"
SCRIPT = Path(__file__).with_name("transformers_tokenizer.py")
CONFIG = {"model_type": "llama", "vocab_size": 49160}
MESSAGES = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4.\n\n"}]
MESSAGES.append({"role": "user", "content": "And in French? é"})
TEXTS = [text for text in corpus() if "\0" not in text][::5]

BOS_FIRST = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
}
SETTINGS = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
ADDED = {"49152": {"content": "<tool>", "special": False}, "49153": {"content": "<|turn|>", "special": True}}
ADDED = {
    key: entry | dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False) for key, entry in ADDED.items()
}

Change = Callable[[dict[str, Any]], None]


def unlisted(document: dict[str, Any]) -> None:
    """Special tokens among the ordinary ones: only the settings name them."""
    document["added_tokens"] = [token for token in document["added_tokens"] if token["id"] > 2]


# name: settings, change of tokenizer.json (None: vocab.json and merges.txt instead), other files
CASES: dict[str, tuple[dict[str, Any], Change | None, dict[str, Any]]] = {
    "as it is": ({"tokenizer_class": "PreTrainedTokenizerFast", **SETTINGS}, lambda d: None, {}),
    "bos by processor": (
        {"tokenizer_class": "PreTrainedTokenizerFast", **SETTINGS},
        lambda d: d.update(post_processor=BOS_FIRST),
        {},
    ),
    "llama": ({"tokenizer_class": "LlamaTokenizerFast", **SETTINGS}, lambda d: None, {}),
    "llama without bos": (
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False, **SETTINGS},
        lambda d: d.update(post_processor=BOS_FIRST),
        {},
    ),
    "gpt2": ({"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, **SETTINGS}, lambda d: None, {}),
    "added elsewhere": (
        {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": ADDED, **SETTINGS},
        lambda d: None,
        {},
    ),
    "special elsewhere": (
        {"tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": ["<file_sep>"], **SETTINGS},
        unlisted,
        {},
    ),
    "template in the settings": (
        {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, **SETTINGS},
        lambda d: None,
        {},
    ),
    "template in a file": (
        {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "old", **SETTINGS},
        lambda d: None,
        {"chat_template.jinja": "{{ bos_token }}" + TEMPLATE},
    ),
    "gpt2 files": ({"tokenizer_class": "GPT2Tokenizer", **SETTINGS}, None, {}),
    "gpt2 files, defaults": ({"tokenizer_class": "GPT2Tokenizer"}, None, {}),
    "qwen2 files": ({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": ADDED, **SETTINGS}, None, {}),
    "qwen2 files, defaults": ({"tokenizer_class": "Qwen2Tokenizer"}, None, {}),
}


@pytest.fixture(scope="session")
def answers(smollm_source: GGUFSource, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    interpreter = os.environ.get(VARIABLE)
    if not interpreter:
        pytest.skip(f"{VARIABLE} does not name a Python with transformers")
    home = tmp_path_factory.mktemp("tokenizers")
    folders = {name: write(home / f"{number}", name, smollm_source) for number, name in enumerate(CASES)}
    asked = {"folders": [str(folder) for folder in folders.values()], "texts": TEXTS, "messages": MESSAGES}
    (home / "cases.json").write_text(json.dumps(asked))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    command = [interpreter, str(SCRIPT), str(home / "cases.json"), str(home / "answers.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    made = json.loads((home / "answers.json").read_text())
    return {name: (folder, made[str(folder)]) for name, folder in folders.items()}


def write(folder: Path, name: str, source: GGUFSource) -> Path:
    settings, change, files = CASES[name]
    document = json.loads(source.tokenizer().tokenizer_json)
    written = {"config.json": CONFIG, "tokenizer_config.json": settings}
    if change is None:
        written["vocab.json"] = document["model"]["vocab"]
        lines = ["#version: 0.2", *(" ".join(pair) for pair in document["model"]["merges"])]
        files = files | {"merges.txt": "\n".join(lines) + "\n"}
    else:
        change(document)
        written["tokenizer.json"] = document
    folder.mkdir()
    for file, content in {**written, **files}.items():
        (folder / file).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", CASES)
def test_equals_transformers(name: str, answers: dict[str, tuple[Path, Any]]) -> None:
    folder, theirs = answers[name]
    files = read_tokenizer(folder, CONFIG)
    tokenizer = Tokenizer(files.tokenizer_json.decode(), bos_token_id=files.bos_token_id)
    different = [
        text
        for text, ids in zip(TEXTS, theirs["ids"], strict=True)
        if tokenizer.encode(text, add_bos=files.add_bos, parse_special=True) != ids
    ]
    assert len(TEXTS) > 400
    assert not different
    assert (files.bos_token_id, files.eos_token_ids[:1]) == (theirs["bos"], (theirs["eos"],))
    assert files.special_tokens == theirs["special"]


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("template")])
def test_conversations_equal_transformers(name: str, answers: dict[str, tuple[Path, Any]]) -> None:
    folder, theirs = answers[name]
    files = read_tokenizer(folder, CONFIG)
    tokenizer = Tokenizer(files.tokenizer_json.decode(), bos_token_id=files.bos_token_id)
    template = ChatTemplate(files.chat_template or "", files.special_tokens)
    assert encode_chat(tokenizer, template, MESSAGES, add_bos=files.add_bos) == theirs["chat"]
