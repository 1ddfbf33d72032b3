"""The language model of a checkpoint with a vision part."""

from __future__ import annotations

import numpy as np
import pytest

from edgeai.errors import SourceError
from edgeai.sources.text_part import text_name, text_part
from edgeai.sources.weights import FloatTensor, TensorInfo


class Whole:
    """Tensors by name, under a configuration."""

    def __init__(self, names: list[str], **config) -> None:
        self.config = {"model_type": "gemma3", **config}
        self.tensors = [TensorInfo(name, (1,), "F32") for name in names]
        self.provenance = object()

    def load(self, name: str) -> FloatTensor:
        if name not in {info.name for info in self.tensors}:
            raise SourceError(f"there is no tensor {name}")
        return FloatTensor(np.array([len(name)], np.float32))

    def tokenizer(self) -> str:
        return "tokenizer"


TEXT = {"hidden_size": 64, "model_type": "gemma3_text"}


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_text_tensors_get_plain_names(prefix: str) -> None:
    whole = Whole(
        [f"{prefix}norm.weight", "vision_tower.norm.weight", "model.vision_tower.norm.weight"], text_config=TEXT
    )
    part = text_part(whole)  # type: ignore[arg-type]
    assert part.config == TEXT
    assert [info.name for info in part.tensors] == ["model.norm.weight"]
    assert part.load("model.norm.weight").dequantize() == len(f"{prefix}norm.weight")
    assert part.tokenizer() == "tokenizer"
    assert part.provenance is whole.provenance
    with pytest.raises(SourceError, match=r"model\.other"):
        part.load("model.other")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("multi_modal_projector.mm_soft_emb_norm.weight", None),
    ],
)
def test_names(name: str, expected: str | None) -> None:
    assert text_name(name) == expected


def test_other_checkpoints_stay_as_they_are() -> None:
    source = Whole(["model.norm.weight"], model_type="gemma3_text")
    assert text_part(source) is source  # type: ignore[comparison-overlap, arg-type]


def test_a_missing_text_config_is_named() -> None:
    with pytest.raises(SourceError, match="text_config"):
        text_part(Whole([]))  # type: ignore[arg-type]
