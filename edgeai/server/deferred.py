"""Imports the application without what few servers ever use of it.

FastAPI describes OpenAPI in some thirty pydantic models, needed for nothing but the making of /openapi.json, and most
clients speak one dialect only. Built when they are used first, the models of what is asked and described spare every
start 45 ms of a fast processor, and the process 4 MiB. And FastAPI imports pydantic 1, 16 ms, to refuse models of that
kind, which are none here; where it cannot be had, it takes that for granted.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel
from pydantic.warnings import UnsupportedFieldAttributeWarning


@contextmanager
def models_built_when_used() -> Iterator[None]:
    """For the import of FastAPI, which nothing else may have imported yet, and of all that has models for it."""
    sys.modules.setdefault("pydantic.v1", None)  # type: ignore[arg-type]
    # FastAPI silences it where it makes models itself, and means it: a body's name is not its model's concern.
    warnings.filterwarnings("ignore", category=UnsupportedFieldAttributeWarning)
    BaseModel.model_config["defer_build"] = True
    try:
        yield
    finally:
        del BaseModel.model_config["defer_build"]
