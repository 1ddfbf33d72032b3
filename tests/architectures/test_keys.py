"""Checked access to a configuration: values of the right kind, or an error that names the key."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgeai.architectures.keys import Keys
from edgeai.errors import SourceError, UnsupportedModel


def test_defaults_stand_in_for_absent_keys_only() -> None:
    keys = Keys({"window": None, "heads": 3}, context=7).with_defaults({"window": 5, "heads": 1, "size": 9})
    assert keys.optional("window", int) is None
    assert (keys.number("heads", int), keys.number("size", int)) == (3, 9)
    assert keys.context == 7


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "8", [8]], ids=repr)
def test_only_positive_numbers_are_numbers(value: Any) -> None:
    for read in (Keys({"size": value}).number, Keys({"size": value}).optional):
        with pytest.raises(SourceError, match=r"config: size is .*, not a positive int"):
            read("size", int)


def test_whole_numbers_may_be_written_as_floats() -> None:
    assert Keys({"size": 8.0}).number("size", int) == 8
    assert isinstance(Keys({"size": 8}).number("size", float), float)


def test_null_is_absent() -> None:
    keys = Keys({"a": None})
    assert (keys.number("a", int, 4), keys.flag("a", True), keys.word("a", "x"), keys.series("a", 2)) == (
        4,
        True,
        "x",
        None,
    )
    assert keys.section("a").values == {}
    with pytest.raises(SourceError, match="config: a is missing") as caught:
        keys.number("a", int)
    assert caught.value.hint


def test_sections_name_where_they_are() -> None:
    section = Keys({"outer": {"inner": -1}}, context=5).section("outer")
    assert section.context == 5
    with pytest.raises(SourceError, match=r"config: outer\.inner is -1"):
        section.number("inner", float)
    with pytest.raises(UnsupportedModel, match="config: outer 'text'"):
        Keys({"outer": "text"}).section("outer")


@pytest.mark.parametrize("value", [[1], "ab", 2, {"a": 1, "b": 2}], ids=repr)
def test_lists_have_the_length_that_is_asked_for(value: Any) -> None:
    with pytest.raises(SourceError, match=r"config: layers is .*, not a list of 2"):
        Keys({"layers": value}).series("layers", 2)


def test_lists_of_numbers() -> None:
    assert Keys({"factors": [1, 2.5]}).numbers("factors", 2) == (1.0, 2.5)
    with pytest.raises(SourceError, match="factors has the entry 'x'"):
        Keys({"factors": [1, "x"]}).numbers("factors", 2)
    with pytest.raises(SourceError, match="factors is missing"):
        Keys({}).numbers("factors", 2)


@pytest.mark.parametrize(("value", "refused"), [(True, True), ({"block": 64}, True), (False, False), (None, False)])
def test_what_blocks_lack_is_refused_where_it_is_set(value: Any, refused: bool) -> None:
    keys = Keys({"sparse": value})
    if refused:
        with pytest.raises(UnsupportedModel, match="config: sparse is not supported"):
            keys.refuse("sparse", "hint")
    else:
        keys.refuse("sparse", "hint")
