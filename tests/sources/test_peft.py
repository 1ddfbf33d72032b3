from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.merged import MergedSource
from edgeai.sources.peft import PeftAdapter
from edgeai.sources.weights import BlockTensor
from tests.architectures.graphs import stored
from tests.fixtures.peft import EVERY, tensors_of, write_adapter
from tests.fixtures.tiny import CONFIG, TinySource, tensor_shapes

Q0 = "model.layers.0.self_attn.q_proj"
A0, B0 = (f"base_model.model.{Q0}.lora_{factor}.weight" for factor in "AB")


def test_an_adapter_is_read(tmp_path: Path) -> None:
    tensors = tensors_of()
    adapter = PeftAdapter(write_adapter(tmp_path / "style", tensors))
    assert adapter.name == "style"
    assert (adapter.rank, adapter.parameters) == (4, sum(values.size for values in tensors.values()))
    shapes = tensor_shapes(CONFIG)
    assert adapter.modules == {name.removesuffix(".weight"): shapes[name] for name in shapes if "proj" in name}
    factors = adapter.load(Q0)
    assert np.array_equal(factors.a, tensors[A0])
    assert np.array_equal(factors.b, tensors[B0])
    assert factors.scale == 2.0
    assert np.allclose(factors.delta(), 2 * tensors[B0] @ tensors[A0], atol=1e-6)


def test_digests_are_those_of_the_files(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path)
    digests = PeftAdapter(folder).digests()
    assert sorted(digests) == ["adapter_config.json", "adapter_model.safetensors"]
    for name, digest in digests.items():
        assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_half_precision_factors(tmp_path: Path) -> None:
    tensors = {name: values.astype(np.float16) for name, values in tensors_of().items()}
    factors = PeftAdapter(write_adapter(tmp_path, tensors)).load(Q0)
    assert factors.a.dtype == np.float32
    assert np.array_equal(factors.a, tensors[A0].astype(np.float32))


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": 3}, 0.75),
        ({"use_rslora": True}, 8 / math.sqrt(4)),
        ({"alpha_pattern": {"q_proj": 2}}, 0.5),
        ({"alpha_pattern": {"layers.1.self_attn.q_proj": 2}}, 2.0),
        ({"alpha_pattern": {r"layers\.[01]\..*q_proj": 2}}, 0.5),
        ({"alpha_pattern": {"proj": 2}}, 2.0),  # a part of a name is no match, as in PEFT
    ],
)
def test_scales(tmp_path: Path, config: dict[str, Any], scale: float) -> None:
    assert PeftAdapter(write_adapter(tmp_path, **config)).load(Q0).scale == pytest.approx(scale)


def test_ranks_may_differ(tmp_path: Path) -> None:
    tensors = tensors_of(["v_proj"], rank=4) | tensors_of(["q_proj"], rank=2)
    adapter = PeftAdapter(write_adapter(tmp_path, tensors, rank_pattern={"q_proj": 2}))
    assert adapter.load(Q0).a.shape == (2, 64)
    assert adapter.load(Q0).scale == 4.0
    assert adapter.rank == 4


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, "adapters of type 'IA3' are not supported"),
        ({"bias": "lora_only"}, "bias 'lora_only' is not supported"),
        ({"use_dora": True}, "use_dora True is not supported"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save \['lm_head'\] is not supported"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out True is not supported"),
        ({"lora_bias": True}, "lora_bias True is not supported"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"init_lora_weights": "pissa_niter_4"}, "also changes the base's weights"),
        ({"something_new": {"a": 1}}, "something_new"),
    ],
)
def test_variants_are_refused_by_name(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        PeftAdapter(write_adapter(tmp_path, **config))


@pytest.mark.parametrize(
    "config",
    [{"init_lora_weights": "gaussian"}, {"something_new": None}, {"something_new": False}, {"exclude_modules": ["x"]}],
)
def test_what_changes_nothing_is_accepted(tmp_path: Path, config: dict[str, Any]) -> None:
    assert PeftAdapter(write_adapter(tmp_path, **config)).rank == 4


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"r": 0}, "r is 0"),
        ({"r": "8"}, "r is '8'"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"r": 8}, "has rank 4; the configuration says 8"),
        ({"rank_pattern": {"q_proj": 3}}, "has rank 4; the configuration says 3"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern is not a table"),
        ({"alpha_pattern": {"(": 1}}, "is no pattern"),
    ],
)
def test_configurations_that_cannot_be(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(SourceError, match=words):
        PeftAdapter(write_adapter(tmp_path, **config))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(UnsupportedModel, match="pickle"):
        PeftAdapter(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    folder = write_adapter(tmp_path)
    (folder / name).unlink()
    with pytest.raises(SourceError, match=name):
        PeftAdapter(folder)


def test_a_configuration_that_is_no_json(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path)
    for text in ("{", "[]"):
        (folder / "adapter_config.json").write_text(text)
        with pytest.raises(SourceError, match="adapter_config"):
            PeftAdapter(folder)


def test_truncated_weights(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match=r"adapter_model\.safetensors"):
        PeftAdapter(folder)


@pytest.mark.parametrize(("missing", "words"), [(A0, f"lora_A of {Q0}"), (B0, f"lora_B of {Q0}")])
def test_a_missing_half(tmp_path: Path, missing: str, words: str) -> None:
    tensors = tensors_of()
    del tensors[missing]
    with pytest.raises(SourceError, match=words):
        PeftAdapter(write_adapter(tmp_path, tensors))


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.lm_head.weight",
        f"base_model.model.{Q0}.lora_magnitude_vector",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        f"{Q0}.lora_A.weight",
    ],
)
def test_tensors_of_other_kinds(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsupportedModel, match="no factor of a low-rank adapter"):
        PeftAdapter(write_adapter(tmp_path, tensors_of() | {name: np.ones((4, 4), np.float32)}))


def test_an_empty_adapter(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path)
    save_file({}, folder / "adapter_model.safetensors")
    with pytest.raises(SourceError, match="changes no module"):
        PeftAdapter(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e7])
def test_values_that_are_no_sensible_numbers(tmp_path: Path, value: float) -> None:
    tensors = tensors_of()
    tensors[B0][3, 1] = value
    adapter = PeftAdapter(write_adapter(tmp_path, tensors))
    with pytest.raises(SourceError, match=r"q_proj\.lora_B"):
        adapter.load(Q0)


class TestMerged:
    def source(self, folder: Path, scale: float = 1.0, **options: Any) -> MergedSource:
        return MergedSource(TinySource(**options), PeftAdapter(folder), scale)

    def test_weights_are_added(self, tmp_path: Path) -> None:
        tensors = tensors_of(["q_proj"])
        source = self.source(write_adapter(tmp_path, tensors), scale=0.5)
        base = TinySource()
        expected = base.load(f"{Q0}.weight").dequantize() + 0.5 * 2 * tensors[B0] @ tensors[A0]
        assert np.allclose(source.load(f"{Q0}.weight").dequantize(), expected, atol=1e-5)
        for name in ("model.layers.0.self_attn.k_proj.weight", "model.norm.weight"):
            assert np.array_equal(source.load(name).dequantize(), base.load(name).dequantize())

    def test_the_base_is_not_changed(self, tmp_path: Path) -> None:
        base = TinySource()
        before = base.load(f"{Q0}.weight").dequantize().copy()
        MergedSource(base, PeftAdapter(write_adapter(tmp_path))).load(f"{Q0}.weight")
        assert np.array_equal(base.load(f"{Q0}.weight").dequantize(), before)

    def test_provenance_has_the_adapters_digests(self, tmp_path: Path) -> None:
        provenance = self.source(write_adapter(tmp_path / "style"), scale=0.5).provenance
        assert provenance.location == "tiny + adapter style x 0.5"
        assert sorted(provenance.sha256) == ["style/adapter_config.json", "style/adapter_model.safetensors"]

    def test_quantized_matrices_leave_their_grid(self, tmp_path: Path) -> None:
        name = f"{Q0}.weight"
        block = stored("q4_1", (64, 64))
        assert isinstance(block, BlockTensor)
        source = self.source(write_adapter(tmp_path), overrides={name: block})
        assert not isinstance(source.load(name), BlockTensor)
        assert source.requantized == []  # as the list of tensors has it: TinySource says F32 of all

    @pytest.mark.parametrize(
        ("options", "words"),
        [({"num_hidden_layers": 1}, "changes model.layers.1"), ({"head_dim": 32}, r"k_proj of shape \[32, 64\]")],
    )
    def test_the_wrong_base(self, tmp_path: Path, options: dict[str, Any], words: str) -> None:
        with pytest.raises(SourceError, match=words):
            self.source(write_adapter(tmp_path, tensors_of(EVERY)), **options)
