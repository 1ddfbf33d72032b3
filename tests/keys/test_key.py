"""What a key is, and what is kept of it."""

from __future__ import annotations

import re

import pytest

from edgeai.errors import InvalidInput
from edgeai.keys.key import SCOPES, ApiKey, split_key


def test_a_secret_has_256_bits_and_is_not_kept() -> None:
    key, secret = ApiKey.create("phone")
    found = re.fullmatch(r"sk-edgeai-([0-9a-f]{8})-([A-Za-z0-9_-]{43})", secret)  # 43 letters of 6 bits
    assert found is not None
    assert found[1] == key.id
    assert found[2] not in str(key.as_dict())
    assert split_key(secret) == (key.id, found[2])
    assert key.matches(found[2])


def test_equal_secrets_have_different_digests() -> None:
    first, _ = ApiKey.create("a")
    second, _ = ApiKey.create("b")
    assert first.salt != second.salt
    assert len(bytes.fromhex(first.salt)) == 16


@pytest.mark.parametrize("text", ["", "any", "sk-edgeai-", "sk-edgeai-00000000-short", "Bearer x", "\udcff" * 62])
def test_what_is_no_key(text: str) -> None:
    assert split_key(text) is None


def test_another_secret_does_not_match() -> None:
    key, secret = ApiKey.create("a")
    _, right = split_key(secret) or ("", "")
    assert not key.matches(right[:-1] + ("A" if right[-1] != "A" else "B"))
    assert not key.matches("")
    rotated, _ = key.rotated()
    assert not rotated.matches(right)
    assert (rotated.id, rotated.created) == (key.id, key.created)


def test_scopes() -> None:
    key, _ = ApiKey.create("a", ("metrics", "chat"))
    assert key.scopes == ("chat", "metrics")
    assert [scope for scope in SCOPES if key.allows(scope)] == ["chat", "metrics"]
    everything, _ = ApiKey.create("b", ("admin",))
    assert all(everything.allows(scope) for scope in SCOPES)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scopes": ("chat", "cook")}, "no scope 'cook'"),
        ({"scopes": ()}, "needs a scope"),
        ({"requests_per_minute": 0}, "0 is no limit"),
        ({"tokens_per_day": -1}, "-1 is no limit"),
        ({"name": ""}, "no name"),
        ({"name": "a\nb"}, "no name"),
        ({"name": " a"}, "no name"),
    ],
)
def test_mistakes(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        ApiKey.create(**{"name": "a", **options})  # type: ignore[arg-type]


def test_expiry() -> None:
    key, _ = ApiKey.create("a", expires=100)
    assert not key.expired(99)
    assert key.expired(100)
    assert not ApiKey.create("b")[0].expired(1e12)
