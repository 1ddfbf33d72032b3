"""The tokenizer of a checkpoint folder and what its files say about its use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.folder import FolderSource
from edgeai.sources.weights import TokenizerFiles
from edgeai.text.tokenizer import Tokenizer
from tests.fixtures.checkpoints import TEMPLATE, VOCAB, Checkpoint, tiny_checkpoint, tokenizer_document

Change = Callable[[Checkpoint], None]
END, START, TURN = 0, 1, 2  # <|endoftext|>, <|im_start|>, <|im_end|>
SETTINGS = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., TokenizerFiles]:
    def read(**files: Any) -> TokenizerFiles:
        """Files by name ("tokenizer_config" for tokenizer_config.json), texts or JSON; `config` adds keys."""
        checkpoint = tiny_checkpoint(**files.pop("config", {}))
        for name, document in files.items():
            text = document if isinstance(document, str) else json.dumps(document)
            checkpoint.files[name if "." in name else f"{name}.json"] = text.encode()
        return FolderSource(checkpoint.write(tmp_path / "tiny")).tokenizer()

    return read


def test_the_document_as_it_is(read) -> None:
    files = read()
    assert json.loads(files.tokenizer_json) == tokenizer_document()
    tokenizer = Tokenizer(files.tokenizer_json.decode(), bos_token_id=files.bos_token_id)
    text = "hello w12\n\n<|im_end|> ü🙂"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert (files.chat_template, files.eos_token_ids, files.bos_token_id) == (TEMPLATE, (TURN, END), START)
    assert files.special_tokens == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    assert not files.add_bos
    assert files.sampling == {}


def test_truncation_and_padding_of_training_are_taken_out(read) -> None:
    """Or the device would cut every prompt at the length the model was last trained with."""
    document = tokenizer_document()
    document["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    document["padding"] = {
        "strategy": {"Fixed": 32},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }
    files = read(tokenizer=document)
    backend = tokenizers.Tokenizer.from_str(files.tokenizer_json.decode())
    assert len(backend.encode("12345678").ids) == 7


def test_tokens_that_only_the_settings_list_are_added(read) -> None:
    document = tokenizer_document()
    document["added_tokens"] = [token for token in document["added_tokens"] if token["id"] != TURN]
    listed = {
        str(VOCAB): {"content": "<tool>", "special": False},
        str(TURN): {"content": "<|im_end|>", "special": True},
    }
    files = read(
        tokenizer=document,
        tokenizer_config=SETTINGS | {"added_tokens_decoder": listed},
        added_tokens={"<think>": VOCAB - 1, "<more>": VOCAB + 1},
        config={"vocab_size": VOCAB + 2},
    )
    tokenizer = Tokenizer(files.tokenizer_json.decode())
    assert tokenizer.encode("<tool><more>") == [VOCAB, VOCAB + 1]
    assert tokenizer.encode("<|im_end|>", parse_special=True) == [TURN]
    assert TURN in tokenizer.control_tokens
    assert len(tokenizer.encode("<|im_end|>")) > 1


@pytest.mark.parametrize(
    ("named", "special"),
    [
        ({"additional_special_tokens": ["<think>", "absent"]}, {VOCAB - 1}),
        ({"additional_special_tokens": [{"content": "<think>"}, 3]}, {VOCAB - 1}),
        ({"extra_special_tokens": {"thought_token": "<think>"}}, {VOCAB - 1}),
        ({"extra_special_tokens": ["<think>"]}, {VOCAB - 1}),
        ({"additional_special_tokens": "hello"}, set()),
        ({"additional_special_tokens": None}, set()),
    ],
)
def test_tokens_that_are_named_special_are_so(named: dict[str, Any], special: set[int], read) -> None:
    """Though the document has them among its ordinary ones."""
    document = tokenizer_document() | {"added_tokens": []}
    files = read(tokenizer=document, tokenizer_config=SETTINGS | named)
    assert Tokenizer(files.tokenizer_json.decode()).control_tokens == {START, TURN} | special


PUTS_BOS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [START], "tokens": ["<|im_start|>"]}},
}


@pytest.mark.parametrize(
    ("processor", "settings", "expected"),
    [
        (None, {}, False),
        (PUTS_BOS, {}, True),
        (PUTS_BOS, {"add_bos_token": False}, True),  # this class does not look at the setting
        (PUTS_BOS, {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, False),
        (None, {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True}, True),
        (None, {"tokenizer_class": "LlamaTokenizer"}, True),
        (None, {"tokenizer_class": "GemmaTokenizer"}, True),
        (None, {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}, False),
        (PUTS_BOS, {"bos_token": None}, False),
    ],
)
def test_whether_bos_leads(processor, settings: dict[str, Any], expected: bool, read) -> None:
    document = tokenizer_document() | {"post_processor": processor}
    assert read(tokenizer=document, tokenizer_config=SETTINGS | settings).add_bos is expected


@pytest.mark.parametrize(
    ("generation", "config", "settings", "expected"),
    [
        ({"eos_token_id": END}, {"eos_token_id": 5}, {}, (END, TURN)),
        ({"eos_token_id": [7, TURN]}, {}, {}, (7, TURN, END)),
        ({}, {"eos_token_id": 9}, {}, (9, TURN, END)),
        ({}, {"eos_token_id": [9, 10]}, {"eos_token": None}, (9, 10, END, TURN)),
        ({"eos_token_id": 5000}, {}, {"eos_token": "nowhere"}, (END, TURN)),
    ],
)
def test_what_ends_a_reply(generation, config, settings, expected: tuple[int, ...], read) -> None:
    files = read(generation_config=generation, config=config, tokenizer_config=SETTINGS | settings)
    assert files.eos_token_ids == expected


def test_without_settings_the_configuration_names_bos(read) -> None:
    assert read(tokenizer_config={}, config={"bos_token_id": START}).bos_token_id == START
    assert read(tokenizer_config={}, config={"bos_token_id": 5000}).bos_token_id is None
    assert read(tokenizer_config={"bos_token": None}, config={"bos_token_id": START}).bos_token_id is None


def test_special_tokens_may_be_in_a_map_of_their_own(read) -> None:
    files = read(
        tokenizer_config={"eos_token": {"__type": "AddedToken", "content": "<|im_end|>"}},
        special_tokens_map={"bos_token": {"content": "<|endoftext|>"}, "eos_token": "other", "pad_token": "<|im_end|>"},
    )
    expected = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    assert files.special_tokens == expected
    assert files.bos_token_id == END


NAMED = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer_config": SETTINGS}, None),
        ({"tokenizer_config": SETTINGS | {"chat_template": NAMED}}, "plain"),
        ({"tokenizer_config": SETTINGS | {"chat_template": NAMED[:1]}}, "tools"),
        ({"tokenizer_config": SETTINGS, "chat_template": {"chat_template": "json"}}, "json"),
        ({"tokenizer_config": SETTINGS | {"chat_template": "old"}, "chat_template.jinja": "file\n"}, "file\n"),
    ],
)
def test_where_the_chat_template_is(files: dict[str, Any], expected: str | None, read) -> None:
    assert read(**files).chat_template == expected


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20},
            {"temperature": 0.6, "top_p": 0.95, "top_k": 20},
        ),
        ({"do_sample": True, "repetition_penalty": 1.1, "min_p": 0}, {"repetition_penalty": 1.1, "min_p": 0}),
        ({"temperature": 0.6, "top_p": 0.95}, {}),
        ({"do_sample": False, "temperature": 0.6}, {}),
        (
            {"do_sample": True, "temperature": -1, "top_p": 0, "top_k": 2.5, "min_p": "x", "repetition_penalty": True},
            {},
        ),
        ({"do_sample": True, "temperature": None, "typical_p": 0.9}, {}),
    ],
)
def test_how_its_makers_sample(generation: dict[str, Any], expected: dict[str, float], read) -> None:
    assert read(generation_config=generation).sampling == expected


BAD: dict[str, tuple[dict[str, Any], type[SourceError], str]] = {
    "not JSON": ({"tokenizer": "{"}, SourceError, r"tokenizer\.json is not JSON"),
    "of no model": (
        {"tokenizer": {"version": "1.0"}},
        SourceError,
        r"tokenizer\.json is not accepted by the tokenizers",
    ),
    "added tokens of another kind": (
        {"tokenizer": tokenizer_document() | {"added_tokens": ["x"]}},
        SourceError,
        "added_tokens is no list of tokens",
    ),
    "a token of two ids": (
        {"tokenizer_config": {"added_tokens_decoder": {"299": {"content": "hello"}}}},
        SourceError,
        r"token 'hello' is \d+ in tokenizer\.json and 299 elsewhere",
    ),
    "an id that leaves a gap": (
        {"added_tokens": {"<far>": VOCAB + 5}, "config": {"vocab_size": VOCAB + 9}},
        SourceError,
        f"token '<far>' would be {VOCAB}, the files say {VOCAB + 5}",
    ),
    "a token without content": (
        {"tokenizer_config": {"added_tokens_decoder": {"299": {"special": True}}}},
        SourceError,
        "added token '299' has no content",
    ),
    "an id that is none": ({"added_tokens": {"x": "3"}}, SourceError, "'x' has the id '3'"),
    "more tokens than rows": (
        {"added_tokens": {"<one too many>": VOCAB}},
        SourceError,
        rf"token '<one too many>' has the id {VOCAB}, the model only {VOCAB} rows",
    ),
    "end of another kind": ({"generation_config": {"eos_token_id": "</s>"}}, SourceError, "eos_token_id is '</s>'"),
    "template of another kind": ({"tokenizer_config": {"chat_template": 3}}, SourceError, "chat_template is neither"),
    "settings not JSON": ({"tokenizer_config": "nonsense"}, SourceError, r"tokenizer_config\.json is not JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named(case: str, read) -> None:
    files, error, words = BAD[case]
    with pytest.raises(error, match=words) as caught:
        read(**files)
    assert caught.value.hint


def test_there_is_no_tokenizer(tmp_path: Path) -> None:
    folder = tiny_checkpoint().write(tmp_path / "tiny")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UnsupportedModel, match=r"tiny has no tokenizer\.json"):
        FolderSource(folder).tokenizer()
