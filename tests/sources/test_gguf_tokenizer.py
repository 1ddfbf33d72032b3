"""Tokenizers rebuilt from GGUF metadata, against llama.cpp: by golden ids, and by itself where it is installed."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.gguf_format import GGUFFile
from edgeai.sources.gguf_pretokenizers import PRE_TOKENIZERS
from edgeai.sources.gguf_tokenizer import read_tokenizer
from edgeai.text import Tokenizer
from tests.fixtures.gguf_files import GGUF, VOCAB, changed, tiny_llama
from tests.fixtures.sentencepieces import BPE, MODELS, described, in_gguf
from tests.fixtures.sentencepieces import rebuilt as sentencepiece_rebuilt
from tests.fixtures.texts import corpus, every_letter
from tests.fixtures.tokenizer_golden import GOLDEN, Case, load_golden, pack, tokenize

Write = Callable[[GGUF], Path]

# Texts for which llama.cpp departs from the models' own expressions: it takes letters and marks beyond ASCII for upper
# and lower case at once, and whitespace beyond ASCII for a vertical tab where it uses std::wregex.
BEYOND, WIDE_SPACE = re.compile("[^\0-\x7f]"), re.compile(r"[^\S\0-\x7f]")
DEPARTURES = dict.fromkeys(("tekken", "gpt-4o", "llama4", "kanana2", "minimax-m2"), BEYOND)
DEPARTURES |= {"deepseek-llm": WIDE_SPACE, "deepseek-coder": WIDE_SPACE}
# It has no bytes in unigram models, aborts without them in others, and normalizes no text for BPE; SentencePiece does.
NOT_IN_LLAMA_CPP = {"unigram with bytes", "bpe without bytes", "bpe normalized"}


@pytest.fixture
def llama_cpp() -> None:
    pytest.importorskip("llama_cpp", reason="the extra `peers` is not installed")


def differences(tokenizer: Tokenizer, cases: list[Case]) -> list[str]:
    return [
        case.text
        for case in cases
        if tokenizer.encode(case.text, parse_special=True) != case.special or tokenizer.encode(case.text) != case.plain
    ]


def rebuilt(path: Path) -> Tokenizer:
    file = GGUFFile(path)
    files = read_tokenizer(file, vocab_size=len(file.metadata["tokenizer.ggml.tokens"]))
    return Tokenizer(files.tokenizer_json.decode(), bos_token_id=files.bos_token_id)


def test_equals_llama_cpp_on_the_golden_texts(smollm_tokenizer: Tokenizer) -> None:
    cases = load_golden()
    assert len(cases) > 2500
    assert [case.text for case in cases] == corpus()
    assert differences(smollm_tokenizer, cases) == []


def test_digits_are_cut_off_before_words(smollm_tokenizer: Tokenizer) -> None:
    """The case that a plain byte-level pre-tokenizer gets wrong."""
    ids = smollm_tokenizer.encode("a\n\n12")
    assert [smollm_tokenizer.token_bytes(token) for token in ids] == [b"a", b"\n\n", b"1", b"2"]


@pytest.mark.peer
@pytest.mark.usefixtures("llama_cpp")
def test_golden_ids_are_still_those_of_llama_cpp(smollm_gguf: Path) -> None:
    assert GOLDEN.read_bytes() == pack(tokenize(smollm_gguf, corpus()))


@pytest.mark.peer
@pytest.mark.usefixtures("llama_cpp")
def test_equals_llama_cpp_on_every_letter(smollm_gguf: Path, smollm_tokenizer: Tokenizer) -> None:
    assert differences(smollm_tokenizer, list(tokenize(smollm_gguf, every_letter()))) == []


@pytest.mark.peer
@pytest.mark.usefixtures("llama_cpp")
@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_pre_tokenizer_equals_llama_cpp(write_gguf: Write, smollm_gguf: Path, pre: str) -> None:
    """SmolLM2's vocabulary under another pre-tokenizer: an odd model, but a cut in another place gives other ids."""
    real = GGUFFile(smollm_gguf).metadata
    metadata = {key: value for key, value in real.items() if key.startswith("tokenizer.")}
    model = GGUF(metadata={"general.architecture": "llama"} | metadata | {"tokenizer.ggml.pre": pre})
    model.metadata["tokenizer.ggml.add_bos_token"] = False
    path = write_gguf(model)
    departs = DEPARTURES.get(pre)
    texts = [text for text in corpus() if departs is None or not departs.search(text)]
    assert len(texts) > 900
    assert differences(rebuilt(path), list(tokenize(path, texts))) == []


def test_files_of_smollm(smollm_source: GGUFSource) -> None:
    files = smollm_source.tokenizer()
    assert files.eos_token_ids == (2, 0)
    assert (files.bos_token_id, files.add_bos) == (1, False)
    assert files.special_tokens == {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
    }
    assert files.chat_template is not None
    assert files.chat_template.startswith("{% for message in messages %}")


def test_bytes_are_deterministic(smollm_gguf: Path) -> None:
    assert GGUFSource(smollm_gguf).tokenizer() == GGUFSource(smollm_gguf).tokenizer()


@pytest.mark.parametrize("name", MODELS)
def test_a_sentencepiece_model_is_the_same_out_of_a_gguf_file(write_gguf: Write, name: str) -> None:
    """Scores come back as float32 either way."""
    source = GGUFSource(write_gguf(in_gguf(name)))
    files = source.tokenizer()
    ours, direct = Tokenizer(files.tokenizer_json.decode()), sentencepiece_rebuilt(name)
    assert [ours.encode(text) for text in corpus()[::7]] == [direct.encode(text) for text in corpus()[::7]]
    assert (files.bos_token_id, files.eos_token_ids[0], files.add_bos) == (1, 2, name in BPE)
    assert files.special_tokens["unk_token"] == "<unk>"


@pytest.mark.peer
@pytest.mark.usefixtures("llama_cpp")
@pytest.mark.parametrize("name", [name for name in MODELS if name not in NOT_IN_LLAMA_CPP])
def test_sentencepiece_models_equal_llama_cpp(write_gguf: Write, name: str) -> None:
    """Normalized text differs in rare accents, unigrams in spellings of equal score."""
    path = write_gguf(in_gguf(name))
    found = differences(rebuilt(path), list(tokenize(path, corpus())))
    assert len(found) <= (10 if described(name).charsmap or name == "unigram untouched" else 0), found


def test_control_tokens_of_phi3_take_the_whitespace_behind_them(write_gguf: Write) -> None:
    """The file does not say so; like llama.cpp we go by the name."""
    model = changed(tiny_llama(), {"general.name": "Phi-3.5-mini"})
    tokenizer, plain = rebuilt(write_gguf(model)), rebuilt(write_gguf(tiny_llama()))
    taken = tokenizer.encode("<|im_start|>\nhello<|endoftext|>\nhello", parse_special=True)
    assert taken == plain.encode("<|im_start|>hello<|endoftext|>\nhello", parse_special=True)


def test_types_of_tokens(write_gguf: Write) -> None:
    path = write_gguf(tiny_llama())
    added = json.loads(GGUFSource(path).tokenizer().tokenizer_json)["added_tokens"]
    assert [(token["id"], token["content"], token["special"]) for token in added] == [
        (0, "<|endoftext|>", True),
        (1, "<|im_start|>", True),
        (2, "<|im_end|>", True),
        (VOCAB - 1, "<think>", False),
    ]
    tokenizer = rebuilt(path)
    assert tokenizer.encode("hello<think>") == [*tokenizer.encode("hello"), VOCAB - 1]
    assert len(tokenizer.encode("<|im_end|>")) > 1


def test_end_tokens_of_a_wrong_type_end_a_reply_all_the_same(write_gguf: Write) -> None:
    model = tiny_llama()
    model.metadata["tokenizer.ggml.token_type"] = [1] * VOCAB
    files = GGUFSource(write_gguf(model)).tokenizer()
    assert files.eos_token_ids == (2, 0)
    assert rebuilt(write_gguf(model)).control_tokens == {0, 2}


def test_end_ids_of_the_metadata_come_first(write_gguf: Write) -> None:
    metadata = {"tokenizer.ggml.eos_token_id": 9, "tokenizer.ggml.eot_token_id": 7, "tokenizer.ggml.eom_token_id": 9}
    assert GGUFSource(write_gguf(changed(tiny_llama(), metadata))).tokenizer().eos_token_ids == (9, 7, 0, 2)


def test_bos_is_added_where_the_metadata_or_the_pre_tokenizer_says_so(write_gguf: Write) -> None:
    without = GGUFSource(write_gguf(tiny_llama())).tokenizer()
    assert not without.add_bos
    told = GGUFSource(write_gguf(changed(tiny_llama(), {"tokenizer.ggml.add_bos_token": True}))).tokenizer()
    assert told.add_bos
    model = changed(tiny_llama(pre="llama-bpe"), {}, ["tokenizer.ggml.add_bos_token"])
    implied = GGUFSource(write_gguf(model)).tokenizer()
    assert implied.add_bos
    backend = tokenizers.Tokenizer.from_str(implied.tokenizer_json.decode())
    assert backend.encode("hello").ids[0] == implied.bos_token_id == 1
    nothing = changed(model, {}, ["tokenizer.ggml.bos_token_id"])
    assert not GGUFSource(write_gguf(nothing)).tokenizer().add_bos


def test_merges_without_a_token_are_left_out(write_gguf: Write) -> None:
    model = tiny_llama()
    before = rebuilt(write_gguf(model)).encode("hello world")
    model.metadata["tokenizer.ggml.merges"].append("w o")
    assert rebuilt(write_gguf(model)).encode("hello world") == before


@pytest.mark.parametrize("name", ["model", "tokens", "merges"])
def test_missing_metadata(write_gguf: Write, name: str) -> None:
    source = GGUFSource(write_gguf(changed(tiny_llama(), {}, [f"tokenizer.ggml.{name}"])))
    with pytest.raises(SourceError, match=rf"model\.gguf: metadata key 'tokenizer\.ggml\.{name}' is missing"):
        source.tokenizer()


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"model": "rwkv"}, "tokenizer 'rwkv' is not supported"),
        ({"model": "llama"}, "metadata key 'tokenizer.ggml.scores' is missing"),
        ({"model": "llama", "scores": [0.5] * 3}, "3 scores for 269 tokens"),
        ({"model": "t5", "scores": ["x"] * VOCAB}, "scores is not a list of float"),
        ({"model": "t5", "scores": [0.5] * VOCAB, "precompiled_charsmap": [1, 300]}, "holds more than bytes"),
        (
            {"model": "t5", "scores": [0.5] * VOCAB, "precompiled_charsmap": b"\1\2"},
            "table of the tokenizer's normalizer is damaged",
        ),
        ({"pre": "kimi-k2"}, "pre-tokenizer 'kimi-k2' is not supported"),
        ({"tokens": ["a", "b"]}, "2 tokens for an embedding of 269 rows"),
        ({"tokens": ["a"] * VOCAB}, "lists a token twice"),
        ({"tokens": [1] * VOCAB}, "tokens is not a list of str"),
        ({"token_type": [1, 1]}, "2 token types for 269 tokens"),
        ({"merges": ["nospace"]}, "merge 'nospace' is not a pair"),
        ({"bos_token_id": 269}, "bos_token_id is 269, outside the 269 tokens"),
        ({"eos_token_id": "2"}, "'tokenizer.ggml.eos_token_id' is '2', not int"),
    ],
)
def test_wrong_metadata(write_gguf: Write, metadata: dict[str, object], words: str) -> None:
    prefixed = {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}
    path = write_gguf(changed(tiny_llama(), prefixed))
    with pytest.raises(SourceError, match=words):
        GGUFSource(path).tokenizer()


def test_unsupported_tokenizers_say_what_is_supported(write_gguf: Write) -> None:
    path = write_gguf(changed(tiny_llama(), {"tokenizer.ggml.pre": "kimi-k2"}))
    with pytest.raises(UnsupportedModel) as caught:
        GGUFSource(path).tokenizer()
    assert "smollm" in caught.value.hint
