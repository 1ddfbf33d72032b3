"""The licence in a model card's front matter."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.sources.model_card import stated_licence


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\nlanguage:\n- en\nlicense: mit  # as of 2024\ntags: []\n---\n# license: gpl\n", "mit"),
        ('---\r\nlicense: "llama3.2"\r\n---\r\n', "llama3.2"),
        ("\ufeff---\nlicense:\n- cc-by-4.0\n---\n", "cc-by-4.0"),
        ("---\nlicense: [gemma]\n---\n", "gemma"),
        ("---\nlicense: other\nlicense_name: tiny-community\nlicense_link: x\n---\n", "tiny-community"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense:\ntags: x\n---\n", None),
        ("---\nbase:\n  license: mit\n---\n", None),
        ("---\nlanguage: en\n---\nlicense: mit\n", None),
        ("# Title\n\n---\nlicense: mit\n---\n", None),
        ("---\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_front_matter(card: str, licence: str | None, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(card.encode())
    assert stated_licence(tmp_path) == licence


def test_no_card_and_a_card_of_other_bytes(tmp_path: Path) -> None:
    assert stated_licence(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"---\nlicense: mit\nauthor: \xff\xfe\n---\n")
    assert stated_licence(tmp_path) == "mit"
