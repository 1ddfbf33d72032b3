"""Checked access to the keys of a `config.json`: a value is there and of its kind, or the error names the key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from edgeai.errors import SourceError, UnsupportedModel

Number = TypeVar("Number", int, float)


class Keys:
    """A configuration, and the context length that the package is asked to have (None: the model's own)."""

    def __init__(self, values: Mapping[str, Any], context: int | None = None, where: str = "config: ") -> None:
        self.values = values
        self.context = context
        self.where = where

    def with_defaults(self, defaults: Mapping[str, Any]) -> Keys:
        """The same configuration where `defaults` stand in for absent keys; null stays null.

        A `config.json` leaves out what equals the defaults of transformers' class for the model type.
        """
        return Keys({**defaults, **self.values}, self.context, self.where)

    def section(self, key: str) -> Keys:
        """The mapping below `key`; empty where the key is absent or null."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise UnsupportedModel(f"{self.where}{key} {value!r} is not supported", f"{key} has to be a mapping")
        return Keys(value or {}, self.context, f"{self.where}{key}.")

    def number(self, key: str, kind: type[Number], default: Number | None = None) -> Number:
        """A positive number. Raises `SourceError` when it is anything else, or absent without a default."""
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise SourceError(f"{self.where}{key} is missing", "the checkpoint is incomplete; get it again")
        if not _is_positive(value, kind):
            raise SourceError(f"{self.where}{key} is {value!r}, not a positive {kind.__name__}")
        return kind(value)

    def optional(self, key: str, kind: type[Number]) -> Number | None:
        """A positive number, or None where the key is absent or null."""
        return None if self.values.get(key) is None else self.number(key, kind)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.values.get(key)
        return default if value is None else bool(value)

    def word(self, key: str, default: str) -> str:
        value = self.values.get(key)
        return default if value is None else str(value)

    def series(self, key: str, length: int) -> Sequence[Any] | None:
        """A list of `length` values, or None where the key is absent or null."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != length:
            raise SourceError(f"{self.where}{key} is {_shown(value)}, not a list of {length}")
        return value

    def numbers(self, key: str, length: int) -> tuple[float, ...]:
        """A list of `length` positive numbers."""
        values = self.series(key, length)
        if values is None:
            raise SourceError(f"{self.where}{key} is missing", "the checkpoint is incomplete; get it again")
        for value in values:
            if not _is_positive(value, float):
                raise SourceError(f"{self.where}{key} has the entry {value!r}, which is not a positive number")
        return tuple(float(value) for value in values)

    def refuse(self, key: str, hint: str) -> None:
        """Raise `UnsupportedModel` where `key` is set: the shared blocks do not have what it asks for."""
        if self.values.get(key):
            raise UnsupportedModel(f"{self.where}{key} is not supported", hint)


def _is_positive(value: object, kind: type[int] | type[float]) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value > 0 and kind(value) == value


def _shown(value: object) -> str:
    return f"a list of {len(value)}" if isinstance(value, list | tuple) else repr(value)[:60]
