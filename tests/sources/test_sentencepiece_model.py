"""tokenizer.model files: read as the library reads them, or refused by name."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import sentencepiece_model_pb2

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.folder_tokenizer import read_tokenizer
from edgeai.sources.sentencepiece_model import parse, read_sentencepiece
from edgeai.text.tokenizer import Tokenizer
from tests.fixtures.sentencepieces import MODELS, described, processor
from tests.fixtures.texts import corpus
from tests.sources.test_sentencepiece_json import ALLOWED

TEXTS = [text for text in corpus() if "\0" not in text][::4]


def proto(name: str) -> Any:
    """The library's own view of a trained model, to be changed and written."""
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(processor(name).serialized_model_proto())
    return model


def written(model: Any, folder: Path) -> Path:
    path = folder / "tokenizer.model"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_read_as_the_library_reads_it(name: str) -> None:
    model, _ = parse(processor(name).serialized_model_proto(), "tokenizer.model")
    assert model == described(name)


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_with_a_model_encodes_as_the_library(name: str, tmp_path: Path) -> None:
    written(proto(name), tmp_path)
    size = processor(name).vocab_size()
    files = read_tokenizer(tmp_path, {"vocab_size": size, "tokenizer_class": "LlamaTokenizer", "bos_token_id": 1})
    tokenizer = Tokenizer(files.tokenizer_json.decode(), bos_token_id=files.bos_token_id)
    different = [text for text in TEXTS if tokenizer.encode(text) != processor(name).encode(text)]
    assert len(different) <= ALLOWED.get(name, 0), different
    assert (tokenizer.vocab_size, files.bos_token_id) == (size, 1)


def test_settings_beside_the_model(tmp_path: Path) -> None:
    written(proto("bpe"), tmp_path)
    listed = {str(processor("bpe").vocab_size()): {"content": "<turn>", "special": True}}
    settings = {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": listed}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    files = read_tokenizer(tmp_path, {"vocab_size": 2000})
    tokenizer = Tokenizer(files.tokenizer_json.decode(), bos_token_id=files.bos_token_id)
    assert (files.bos_token_id, files.add_bos, files.eos_token_ids) == (1, True, (2,))
    assert files.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    assert tokenizer.encode("<turn>", parse_special=True) == [processor("bpe").vocab_size()]


def cut(model: Any) -> bytes:
    data: bytes = model.SerializeToString()
    return data[:-400]


def without_rules(model: Any) -> Any:
    model.ClearField("normalizer_spec")
    return model


def repeated(model: Any) -> Any:
    model.pieces.add(piece=model.pieces[300].piece, score=0.0)
    return model


def unscored(model: Any) -> Any:
    model.pieces[300].score = float("nan")
    return model


def untyped(model: Any) -> bytes:
    return b"\x0a\x05\x0a\x01x\x18\x09"


def words(model: Any) -> Any:
    model.trainer_spec.model_type = 3
    return model


def suffixed(model: Any) -> Any:
    model.trainer_spec.treat_whitespace_as_suffix = True
    return model


def charsmap(model: Any) -> Any:
    model.normalizer_spec.precompiled_charsmap = struct.pack("<I", 8) + bytes(2)
    return model


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (cut, SourceError, r"ends inside|settings behind the vocabulary"),
        (without_rules, SourceError, "settings behind the vocabulary are missing"),
        (lambda _: b"\x12\x00\x1a\x00", SourceError, "lists no tokens"),
        (lambda _: b"", SourceError, "settings behind the vocabulary are missing"),
        (lambda _: b"not a model at all", SourceError, r"tokenizer\.model: "),
        (repeated, SourceError, "lists a token twice"),
        (unscored, SourceError, "has the score nan"),
        (untyped, SourceError, "'x' has the score 0.0 and the type 9"),
        (charsmap, SourceError, "normalizer is damaged"),
        (words, UnsupportedModel, "a word model is not supported"),
        (suffixed, UnsupportedModel, "spaces as suffixes"),
    ],
)
def test_bad_models_are_named(spoil: Any, error: type[SourceError], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message) as caught:
        read_sentencepiece(written(spoil(proto("bpe")), tmp_path))
    assert caught.value.message.startswith("tokenizer.model: ")
