"""vocab.json and merges.txt: the tokenizer that they stand for, or what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.folder import FolderSource
from edgeai.sources.folder_tokenizer import read_tokenizer
from edgeai.text.tokenizer import Tokenizer
from tests.fixtures.checkpoints import VOCAB, tiny_checkpoint
from tests.fixtures.gguf_files import vocabulary

TOKENS, _, MERGES = vocabulary()
CONFIG = {"vocab_size": VOCAB}


def folder_with(folder: Path, vocab: Any = None, merges: str | None = None, kind: str = "GPT2Tokenizer") -> Path:
    (folder / "vocab.json").write_text(json.dumps(vocab or {token: index for index, token in enumerate(TOKENS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n" if merges is None else merges)
    settings = {"tokenizer_class": kind, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "Qwen2TokenizerFast"])
def test_words_are_merged(kind: str, tmp_path: Path) -> None:
    files = read_tokenizer(folder_with(tmp_path, kind=kind), CONFIG)
    tokenizer = Tokenizer(files.tokenizer_json.decode())
    spelled = [TOKENS[token] for token in tokenizer.encode("hello w\u00e9")]
    assert spelled == ["hello", "Ġw", "Ã", "©"]
    unused = {0} if kind.startswith("Qwen2") else set()  # its class pads with <|endoftext|>
    assert tokenizer.control_tokens == {1, 2} | unused
    composed = [TOKENS[token] for token in tokenizer.encode("e\u0301")]
    assert composed == (["Ã", "©"] if kind.startswith("Qwen2") else ["e", "Ì", "ģ"])


def test_files_are_listed_only_where_they_are_read(tmp_path: Path) -> None:
    folder = tiny_checkpoint().write(tmp_path)
    folder_with(folder)
    assert "vocab.json" not in FolderSource(folder).provenance.sha256
    (folder / "tokenizer.json").unlink()
    assert {"vocab.json", "merges.txt"} <= FolderSource(folder).provenance.sha256.keys()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"kind": "BloomTokenizer"}, UnsupportedModel, "how BloomTokenizer cuts words is not known"),
        ({"kind": ""}, UnsupportedModel, "how it cuts words is not known"),
        ({"vocab": {"a": 0, "b": 2}}, SourceError, "token 'b' has the id 2 among 2"),
        ({"vocab": {"a": 0, "b": 0}}, SourceError, "token 'b' has the id 0 among 2"),
        ({"vocab": {"a": "0"}}, SourceError, "token 'a' has the id '0' among 1"),
        ({"merges": "h e\nhello\n"}, SourceError, r"merges\.txt: line 2 is no pair of tokens: 'hello'"),
        ({"merges": "h e\nh z z\n"}, SourceError, r"merges\.txt: line 2 is no pair"),
        ({"merges": "h 漢\n"}, SourceError, "is not accepted by the tokenizers library"),
    ],
)
def test_bad_files_are_named(changes: dict[str, Any], error: type[SourceError], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        read_tokenizer(folder_with(tmp_path, **changes), CONFIG)
