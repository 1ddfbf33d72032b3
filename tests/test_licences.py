"""Which licences are open, and how model cards' words are read."""

from __future__ import annotations

import pytest

from edgeai import licences
from edgeai.package.licence import known_licences


@pytest.mark.parametrize(
    ("stated", "spdx"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("MIT", "MIT"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("gpl-3.0", "GPL-3.0-only"),
        ("llama3.2", "LicenseRef-llama3.2"),
        ("gemma", "LicenseRef-gemma"),
        ("LicenseRef-mine", "LicenseRef-mine"),
        ("Some Model Licence", "LicenseRef-Some-Model-Licence"),
        ("other", licences.UNKNOWN),
        ("", licences.UNKNOWN),
        (None, licences.UNKNOWN),
    ],
)
def test_words_of_model_cards(stated: str | None, spdx: str) -> None:
    assert licences.canonical(stated) == spdx


@pytest.mark.parametrize(
    ("spdx", "is_open"),
    [
        ("Apache-2.0", True),
        ("CC-BY-4.0", True),
        ("CC-BY-NC-4.0", False),
        ("LicenseRef-llama3.2", False),
        (licences.UNKNOWN, False),
        ("MIT AND Apache-2.0", True),
        ("MIT AND LicenseRef-gemma", False),
        ("MIT OR LicenseRef-gemma", True),
        ("apache", False),
    ],
)
def test_open_is_what_everyone_may_use(spdx: str, is_open: bool) -> None:
    assert licences.is_open(spdx) is is_open


def test_what_is_not_in_the_list_has_neighbours_that_are() -> None:
    assert not licences.is_known("Apache 2")
    assert "Apache-2.0" in licences.nearest("Apache 2")
    assert licences.is_known("LicenseRef-anything")


def test_every_text_that_ships_is_of_an_open_licence() -> None:
    assert set(known_licences()) <= licences.OPEN
