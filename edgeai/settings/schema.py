"""The names, types and bounds of settings as pydantic-settings checks them, made from `ServerSettings`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any, get_type_hints

from pydantic import BeforeValidator, Field, create_model
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from edgeai.config import ServerSettings, parse_duration, size_or_other
from edgeai.errors import InvalidInput

PREFIX = "EDGEAI_"
SIZE_SUFFIX = "_bytes"  # of fields that people write as 512M
SECONDS_SUFFIX = "_seconds"  # of fields that people write as 5m
SEPARATOR = ","  # between the items of a list in a variable


class Base(BaseSettings):
    """Takes only what it is given: which source wins is decided where the sources are known."""

    model_config = SettingsConfigDict(extra="forbid", env_prefix=PREFIX, validate_default=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (the names are pydantic-settings')
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Neither the environment nor files."""
        return (init_settings,)


class StrictBase(Base):
    """For sources that have types: there a number is no text, and true is no number."""

    model_config = SettingsConfigDict(strict=True)


def public_name(entry: dataclasses.Field[Any]) -> str:
    """What files call a field; variables and flags follow from it."""
    return str(entry.metadata.get("name") or entry.name)


@functools.cache
def settings_fields() -> Mapping[str, dataclasses.Field[Any]]:
    """The fields of `ServerSettings` by public name. All models are one list: `also` is the rest of `model`."""
    return {public_name(entry): entry for entry in dataclasses.fields(ServerSettings) if entry.name != "also"}


@functools.cache
def schema(*, strict: bool) -> type[BaseSettings]:
    """A pydantic-settings class with every setting under its public name."""
    hints = get_type_hints(ServerSettings) | {"model": tuple[str, ...]}
    made: dict[str, Any] = {
        name: (_checked(entry, hints[entry.name]), entry.default) for name, entry in settings_fields().items()
    }
    return create_model("Settings", __base__=StrictBase if strict else Base, **made)


def _checked(entry: dataclasses.Field[Any], kind: Any) -> Any:
    if entry.name.endswith(SIZE_SUFFIX):
        kind = Annotated[kind, BeforeValidator(size_or_other)]
    elif entry.name.endswith(SECONDS_SUFFIX):
        kind = Annotated[kind, BeforeValidator(_duration)]
    elif kind == tuple[str, ...]:
        return Annotated[kind, NoDecode, BeforeValidator(_listed)]
    least = entry.metadata.get("least")
    return kind if least is None else Annotated[kind, Field(ge=least, le=entry.metadata["most"])]


def _duration(value: Any) -> Any:
    try:
        return parse_duration(value)
    except InvalidInput as error:
        raise ValueError(str(error)) from error


def _listed(value: Any) -> Any:
    """A list may be one item, or in a variable several between commas."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(SEPARATOR) if item.strip())
    return tuple(value) if isinstance(value, list) else value
