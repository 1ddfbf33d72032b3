"""Which runner a package's graph needs: one entry per `runtime` of the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.exported_runner import ExportedRunner
from edgeai.engine.model_runner import ModelRunner
from edgeai.engine.prompt_reader import PromptGraph
from edgeai.engine.runner import Runner

RUNNERS: Mapping[str, Callable[[Path, ModelShape, EngineSettings, int, Path | None, PromptGraph | None], Runner]] = {
    "fused": ModelRunner,
    "exported": ExportedRunner,
    "exported-unpadded": partial(ExportedRunner, padded=False),
}


def load_runner(
    graph: Path,
    shape: ModelShape,
    settings: EngineSettings,
    context_length: int,
    adapter_graph: Path | None = None,
    prompt_graph: PromptGraph | None = None,
) -> Runner:
    """Raises `PackageError` when the graph cannot be loaded, `OutOfMemory` when the arena cannot be reserved."""
    return RUNNERS[shape.runtime](graph, shape, settings, context_length, adapter_graph, prompt_graph)
