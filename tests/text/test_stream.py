"""Detokenizer and stop strings: whatever the stream is cut into, the result is that of the whole text."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeai.errors import InvalidInput
from edgeai.sources.gguf import GGUFSource
from edgeai.text import Detokenizer, StopStrings, Tokenizer
from tests.fixtures.gguf_files import VOCAB
from tests.fixtures.texts import corpus


@pytest.fixture(scope="module")
def tiny(tiny_gguf: Path) -> Tokenizer:
    return Tokenizer(GGUFSource(tiny_gguf).tokenizer().tokenizer_json.decode())


def stream(tokenizer: Tokenizer, ids: list[int], *, skip_control: bool = True) -> list[str]:
    detokenizer = Detokenizer(tokenizer, skip_control=skip_control)
    return [*map(detokenizer.push, ids), detokenizer.finish()]


@settings(max_examples=500)
@given(ids=st.lists(st.integers(0, VOCAB - 1), max_size=30), skip=st.booleans())
def test_pieces_add_up_to_the_whole(tiny: Tokenizer, ids: list[int], skip: bool) -> None:
    """Nearly all of these ids are single bytes: mostly broken UTF-8."""
    assert "".join(stream(tiny, ids, skip_control=skip)) == tiny.decode(ids, skip_control=skip)


def test_real_texts(smollm_tokenizer: Tokenizer) -> None:
    for text in corpus():
        ids = smollm_tokenizer.encode(text)
        assert "".join(stream(smollm_tokenizer, ids)) == text


def test_incomplete_characters_are_held_back(tiny: Tokenizer) -> None:
    ids = tiny.encode("a€👍b")
    assert len(ids) == 9
    assert stream(tiny, ids) == ["a", "", "", "€", "", "", "", "👍", "b", ""]
    assert stream(tiny, ids[:3]) == ["a", "", "", "\ufffd"]
    assert stream(tiny, [*ids[:3], ids[0]]) == ["a", "", "", "\ufffda", ""]


def test_ids_beyond_the_vocabulary_say_nothing(tiny: Tokenizer) -> None:
    """A model's head may be padded; what it never learned to say must not end a request with an error."""
    ids = tiny.encode("€")
    assert stream(tiny, [*ids[:1], VOCAB, *ids[1:], VOCAB + 99]) == ["", "", "", "€", "", ""]


def cut_naively(text: str, stops: list[str]) -> tuple[str, bool]:
    """Look after every single character."""
    for end in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            return text[: end - max(map(len, ended))], True
    return text, False


STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=4)


@settings(max_examples=1000)
@given(pieces=st.lists(st.text("abcd", max_size=5), max_size=8), stops=STOPS)
def test_stop_strings_equal_the_naive_search(pieces: list[str], stops: list[str]) -> None:
    matcher = StopStrings(stops)
    shown, stopped = "", False
    for piece in pieces:
        more, stopped = matcher.push(piece)
        shown += more
    shown += matcher.finish()
    assert (shown, stopped) == cut_naively("".join(pieces), stops)
    assert (matcher.matched is not None) == stopped


@settings(max_examples=500)
@given(pieces=st.lists(st.text("abcd", max_size=5), max_size=8), stops=STOPS)
def test_only_what_may_become_a_stop_string_is_held_back(pieces: list[str], stops: list[str]) -> None:
    matcher = StopStrings(stops)
    shown = text = ""
    for piece in pieces:
        more, stopped = matcher.push(piece)
        if stopped:
            break
        shown, text = shown + more, text + piece
        held = text.removeprefix(shown)
        assert text == shown + held
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)


def test_a_stop_string_over_several_pieces() -> None:
    matcher = StopStrings(["\nUser:", "###"])
    assert matcher.push("Sure.\n") == ("Sure.", False)
    assert matcher.push("Use") == ("", False)
    assert matcher.push("ful") == ("\nUseful", False)
    assert matcher.push("\nUser") == ("", False)
    assert matcher.push(": next") == ("", True)
    assert matcher.matched == "\nUser:"
    assert matcher.push("more") == ("", True)
    assert matcher.finish() == ""


def test_without_stop_strings_nothing_is_held_back() -> None:
    matcher = StopStrings([])
    assert matcher.push("anything") == ("anything", False)
    assert matcher.finish() == ""


def test_an_empty_stop_string_is_invalid() -> None:
    with pytest.raises(InvalidInput, match="must not be empty"):
        StopStrings(["a", ""])


def test_control_tokens_are_shown_where_they_are_marks(smollm_tokenizer: Tokenizer) -> None:
    """Those that stand around tool calls and thoughts; others stay hidden."""
    mark, other = smollm_tokenizer.control_id("<reponame>"), smollm_tokenizer.control_id("<file_sep>")
    assert mark is not None
    assert other is not None
    detokenizer = Detokenizer(smollm_tokenizer, shown=frozenset({mark}))
    assert [detokenizer.push(token) for token in (mark, other)] == ["<reponame>", ""]
    assert smollm_tokenizer.control_id("no such token") is None
