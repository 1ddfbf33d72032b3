"""The tokenizer of the device half: against the library it wraps, and against text that tries to be more than text."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeai.errors import InvalidInput, PackageError
from edgeai.sources.gguf import GGUFSource
from edgeai.text import Tokenizer
from edgeai.text.tokenizer import SHIELD
from tests.fixtures.gguf_files import GGUF, VOCAB, tiny_llama
from tests.fixtures.texts import SPECIALS, corpus

PIECES = [
    "<|im_end|>",
    "<|im_start|>",
    "<|",
    "im_end",
    "|>",
    "<",
    SHIELD,
    "user",
    "\n",
    " ",
    "1",
    "é",
    "<|im_",
    "<think>",
]
ATTACKS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


@pytest.fixture(scope="module")
def tiny(tiny_gguf: Path) -> Tokenizer:
    return Tokenizer(GGUFSource(tiny_gguf).tokenizer().tokenizer_json.decode(), bos_token_id=1)


@pytest.fixture(scope="module")
def library(smollm_source: GGUFSource) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(smollm_source.tokenizer().tokenizer_json.decode())


def test_load_reads_what_the_source_wrote(tmp_path: Path, smollm_source: GGUFSource) -> None:
    files = smollm_source.tokenizer()
    path = tmp_path / "tokenizer.json"
    path.write_bytes(files.tokenizer_json)
    tokenizer = Tokenizer.load(path, bos_token_id=files.bos_token_id)
    assert tokenizer.vocab_size == 49152
    assert tokenizer.encode("Hello", add_bos=True) == [1, *tokenizer.encode("Hello")]
    assert tokenizer.control_tokens == frozenset(range(17))


def test_encode_with_specials_is_the_librarys(smollm_tokenizer: Tokenizer, library: tokenizers.Tokenizer) -> None:
    for text in corpus():
        assert smollm_tokenizer.encode(text, parse_special=True) == library.encode(text, add_special_tokens=False).ids


def test_decode_is_the_librarys(smollm_tokenizer: Tokenizer, library: tokenizers.Tokenizer) -> None:
    for text in corpus():
        ids = smollm_tokenizer.encode(text, parse_special=True)
        assert (
            smollm_tokenizer.decode(ids, skip_control=False) == library.decode(ids, skip_special_tokens=False) == text
        )
        assert smollm_tokenizer.decode(ids) == library.decode(ids, skip_special_tokens=True)


@settings(max_examples=300)
@given(ids=st.lists(st.integers(0, 49151), max_size=40))
def test_decode_of_any_ids_is_the_librarys(
    smollm_tokenizer: Tokenizer, library: tokenizers.Tokenizer, ids: list[int]
) -> None:
    for skip in (True, False):
        assert smollm_tokenizer.decode(ids, skip_control=skip) == library.decode(ids, skip_special_tokens=skip)


def test_bytes_of_tokens_add_up_to_the_text(smollm_tokenizer: Tokenizer) -> None:
    for text in corpus():
        ids = smollm_tokenizer.encode(text)
        assert b"".join(map(smollm_tokenizer.token_bytes, ids)) == text.encode()


def test_bytes_of_single_tokens(tiny: Tokenizer) -> None:
    assert [tiny.token_bytes(token) for token in (0, 1, 2)] == [b"<|endoftext|>", b"<|im_start|>", b"<|im_end|>"]
    assert [tiny.token_bytes(3 + byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]
    assert tiny.token_bytes(VOCAB - 1) == b"<think>"
    for token in (-1, VOCAB):
        with pytest.raises(InvalidInput, match=f"token {token} is outside the {VOCAB} tokens"):
            tiny.token_bytes(token)


def test_rows_without_a_token_are_nothing(tiny_gguf: Path) -> None:
    """Tables are padded to round numbers; a model may yet choose such a row."""
    document = GGUFSource(tiny_gguf).tokenizer().tokenizer_json.decode()
    padded = Tokenizer(document, rows=VOCAB + 3)
    assert padded.vocab_size == VOCAB + 3
    assert padded.token_bytes(VOCAB + 2) == b""
    assert padded.decode([*padded.encode("hello"), VOCAB, *padded.encode(" w")]) == "hello w"
    with pytest.raises(InvalidInput, match=f"token {VOCAB + 3} is outside"):
        padded.token_bytes(VOCAB + 3)
    assert Tokenizer(document, rows=5).vocab_size == VOCAB


def test_control_tokens_are_hidden_and_user_defined_ones_are_not(tiny: Tokenizer) -> None:
    ids = tiny.encode("<|im_start|>a<think>b<|im_end|>", parse_special=True)
    assert len(ids) == 5
    assert tiny.decode(ids) == "a<think>b"
    assert tiny.decode(ids, skip_control=False) == "<|im_start|>a<think>b<|im_end|>"


@given(text=ATTACKS)
def test_plain_text_never_becomes_a_control_token(tiny: Tokenizer, text: str) -> None:
    ids = tiny.encode(text)
    assert not tiny.control_tokens & set(ids)
    assert tiny.decode(ids) == text


@settings(max_examples=300)
@given(text=ATTACKS)
def test_shielded_text_is_encoded_as_plain_text(tiny: Tokenizer, text: str) -> None:
    assert tiny.encode_shielded(tiny.shield(text)) == tiny.encode(text)


@settings(max_examples=300)
@given(parts=st.lists(ATTACKS, max_size=4))
def test_shielded_parts_cannot_make_a_control_token_together(tiny: Tokenizer, parts: list[str]) -> None:
    together = "".join(map(tiny.shield, parts))
    assert tiny.encode_shielded(together) == tiny.encode("".join(parts))


@pytest.mark.parametrize("text", [*SPECIALS, "a<|im_end|>b", "<|im_end|><|im_end|>", "\n\n<|im_start|>1"])
def test_shields_inside_a_prompt(smollm_tokenizer: Tokenizer, text: str) -> None:
    """What stands around a shielded text is encoded as if the text were ordinary, control tokens and all."""
    before, after = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    ids = smollm_tokenizer.encode_shielded(before + smollm_tokenizer.shield(text) + after)
    expected = [
        1,
        *smollm_tokenizer.encode("user\n" + text),
        2,
        *smollm_tokenizer.encode("\n"),
        1,
        *smollm_tokenizer.encode("assistant\n"),
    ]
    assert ids == expected


def test_text_without_control_words_is_encoded_as_if_there_were_no_shield(smollm_tokenizer: Tokenizer) -> None:
    before, after = "<|im_start|>user\n", "<|im_end|>\n"
    for text in corpus():
        if any(word in text for word in SPECIALS):
            continue
        shielded = before + smollm_tokenizer.shield(text) + after
        assert smollm_tokenizer.encode_shielded(shielded) == smollm_tokenizer.encode(
            before + text + after, parse_special=True
        )


def test_shield_leaves_ordinary_values_alone(smollm_tokenizer: Tokenizer) -> None:
    value = {"a": ["x < y", 1, None, {"b": (True, 2.5)}], "é": "<b>|end|</b>"}
    assert smollm_tokenizer.shield(value) == {"a": ["x < y", 1, None, {"b": [True, 2.5]}], "é": "<b>|end|</b>"}


def test_shield_reaches_into_keys_and_lists(tiny: Tokenizer) -> None:
    assert tiny.shield({"<|im_end|>": [["<|im_end|>"]]}) == {SHIELD + "<|im_end|>": [[SHIELD + "<|im_end|>"]]}


def test_overlapping_control_tokens(tiny_gguf: Path) -> None:
    document = json.loads(GGUFSource(tiny_gguf).tokenizer().tokenizer_json)
    plain = {key: value for key, value in document["added_tokens"][0].items() if key not in ("id", "content")}
    document["model"]["vocab"] |= {"aXb": VOCAB, "bXc": VOCAB + 1, "X": VOCAB + 2}
    document["added_tokens"] += [{"id": VOCAB + i, "content": t, **plain} for i, t in enumerate(("aXb", "bXc", "X"))]
    tokenizer = Tokenizer(json.dumps(document))
    assert tokenizer.encode("aXbXc", parse_special=True) == [VOCAB, VOCAB + 2, *tokenizer.encode("c")]
    for text in ("aXbXc", "X", "XX", f"{SHIELD}X{SHIELD}{SHIELD}aXb{SHIELD}"):
        assert tokenizer.encode_shielded(tokenizer.shield(text)) == tokenizer.encode(text)


def test_bos_is_added_once(tiny: Tokenizer) -> None:
    rest = tiny.encode("hello")
    assert tiny.encode("hello", add_bos=True) == [1, *rest]
    assert tiny.encode_shielded("hello", add_bos=True) == [1, *rest]
    assert tiny.encode_shielded("<|im_start|>hello", add_bos=True) == [1, *rest]
    assert tiny.encode("", add_bos=True) == [1]
    assert tiny.encode("") == []


@pytest.mark.parametrize("parse_special", [True, False])
def test_half_a_surrogate_pair_is_invalid_input(tiny: Tokenizer, parse_special: bool) -> None:
    with pytest.raises(InvalidInput, match="half of a surrogate pair"):
        tiny.encode("a\ud83d", parse_special=parse_special)


def test_threads_share_one_tokenizer(smollm_tokenizer: Tokenizer) -> None:
    texts = corpus()[:400]
    expected = [smollm_tokenizer.encode(text, parse_special=True) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda text: smollm_tokenizer.encode(text, parse_special=True), texts)
        assert list(found) == expected


def _changed(document: dict[str, Any], **parts: Any) -> str:
    return json.dumps(document | parts)


def test_damaged_and_foreign_tokenizers(tmp_path: Path, tiny_gguf: Path) -> None:
    with pytest.raises(PackageError, match="cannot read the tokenizer"):
        Tokenizer.load(tmp_path / "missing.json")
    text = GGUFSource(tiny_gguf).tokenizer().tokenizer_json.decode()
    document = json.loads(text)
    for damaged, words in (
        ("", "damaged"),
        ("{}", "damaged"),
        (text[:-100], "damaged"),
        (_changed(document, decoder=None), "neither a byte-level one"),
        (
            _changed(document, decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}),
            "neither a byte-level one",
        ),
    ):
        with pytest.raises(PackageError, match=words):
            Tokenizer(damaged)
    with pytest.raises(PackageError, match="BOS token 9999 is outside"):
        Tokenizer(text, bos_token_id=9999)


def test_a_tokenizer_without_control_tokens(write_gguf: Callable[[GGUF], Path]) -> None:
    model = tiny_llama()
    tokens = model.metadata["tokenizer.ggml.tokens"]
    model.metadata["tokenizer.ggml.tokens"] = ["<1>", "<2>", "<3>", *tokens[3:]]
    model.metadata["tokenizer.ggml.token_type"] = [1] * VOCAB
    tokenizer = Tokenizer(GGUFSource(write_gguf(model)).tokenizer().tokenizer_json.decode())
    assert tokenizer.control_tokens == frozenset()
    assert tokenizer.shield("<|im_end|><1>") == "<|im_end|><1>"
    assert tokenizer.encode("hello", parse_special=True) == tokenizer.encode("hello")


def test_control_tokens_may_take_the_whitespace_around_them(tiny_gguf: Path) -> None:
    """Phi-3's take what is behind them; both directions are part of the format."""
    document = json.loads(GGUFSource(tiny_gguf).tokenizer().tokenizer_json)
    plain = Tokenizer(json.dumps(document))
    start, end = (
        next(t for t in document["added_tokens"] if t["content"] == f"<|im_{word}|>") for word in ("start", "end")
    )
    start["rstrip"], end["lstrip"] = True, True
    tokenizer = Tokenizer(json.dumps(document))
    for text, same_as in (
        ("<|im_start|> \n hello <|im_end|> \n hello", "<|im_start|>hello<|im_end|> \n hello"),
        (" <|im_start|>hello", " <|im_start|>hello"),
        ("<|im_start|> \n <|im_end|>", "<|im_start|><|im_end|>"),
    ):
        assert tokenizer.encode(text, parse_special=True) == plain.encode(same_as, parse_special=True)
        assert tokenizer.encode_shielded(text) == plain.encode_shielded(same_as)
        assert tokenizer.encode(text) == plain.encode(text)
