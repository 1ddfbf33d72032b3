"""The plan for a real package, and settings made of it."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from edgeai import memory_plan
from edgeai.device.profile import Memory
from edgeai.engine.config import EngineSettings
from edgeai.errors import OutOfMemory
from edgeai.memory_plan import plan_for, planned
from edgeai.model import model_shape
from edgeai.package.package import Package

MIB = 1 << 20


def within(limit: int) -> Memory:
    return Memory(total=8 << 30, available=(limit - 45) * MIB, limit=limit * MIB)


def test_the_default_model_in_half_a_gigabyte(smollm_package: Package) -> None:
    manifest = smollm_package.manifest
    shape = model_shape(manifest)
    made = plan_for(manifest, shape, EngineSettings(), within(512))
    assert made.rows == 8
    assert made.tight
    assert made.kv_bytes > 8 * 400 * shape.token_bytes
    quarter = plan_for(manifest, model_shape(manifest, "int8"), EngineSettings(), within(512))
    assert quarter.context > 3 * made.context or quarter.context == shape.context_length
    with pytest.raises(OutOfMemory):
        plan_for(manifest, shape, EngineSettings(), within(224))


def test_settings_take_over_the_plan_and_it_is_logged(
    smollm_package: Package, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory_plan, "read_memory", lambda: within(320))
    manifest = smollm_package.manifest
    wished = EngineSettings(threads=1, whole_scores=True)
    with caplog.at_level(logging.INFO, "edgeai.memory"):
        settings = planned(manifest, model_shape(manifest), wished)
    made = plan_for(manifest, model_shape(manifest), wished, within(320))
    assert settings == replace(
        wished,
        kv_budget_bytes=made.kv_bytes,
        max_rows=made.rows,
        chunk_tokens=made.chunk,
        whole_scores=False,
        tight=True,
    )
    assert made.rows < 8
    assert made.explain() in caplog.text
