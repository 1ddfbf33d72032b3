"""Licence texts."""

import pytest

from edgeai.errors import NotFound
from edgeai.package.licence import known_licences, licence_notice, licence_text
from edgeai.recipe import Licence


def test_known_texts_are_whole() -> None:
    assert known_licences() == ["Apache-2.0", "CC0-1.0", "MIT", "MPL-2.0"]
    assert "END OF TERMS AND CONDITIONS" in licence_text("apache-2.0")
    assert licence_text("MIT").startswith("MIT License")


def test_an_unknown_licence_is_said_to_be_unknown_and_its_place_is_named() -> None:
    with pytest.raises(NotFound, match="no text of licence 'llama3'"):
        licence_text("llama3")
    notice = licence_notice(Licence(spdx="llama3", url="https://example.org/licence"))
    assert "licensed under: llama3" in notice
    assert "https://example.org/licence" in notice
    assert licence_notice(Licence(spdx="MIT")) == licence_text("MIT")
