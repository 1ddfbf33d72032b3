"""A GGUF file as a `WeightSource`: names, shapes, row order, configuration, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.gguf import GGUFSource, file_digest, hf_row_order
from edgeai.sources.gguf_rope import llama3_factors
from edgeai.sources.weights import BlockTensor, Provenance
from tests.fixtures.gguf_files import GGUF, HEADS, HIDDEN, KV_HEADS, Entry, changed, random_blocks, tiny_llama

Write = Callable[[GGUF], Path]
RNG = np.random.default_rng(0)


def to_gguf_rows(weight: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to q and k (`LlamaModel.permute`), from its source."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def test_config_is_that_of_the_published_checkpoint(smollm_source: GGUFSource) -> None:
    """The values of config.json in HuggingFaceTB/SmolLM2-135M-Instruct."""
    assert smollm_source.config == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "hidden_act": "silu",
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }


def test_every_tensor_equals_the_reference_reading(smollm_source: GGUFSource, smollm_gguf: Path) -> None:
    theirs = gguf.GGUFReader(smollm_gguf).tensors
    assert len(smollm_source.tensors) == len(theirs) == 272
    for info, tensor in zip(smollm_source.tensors, theirs, strict=True):
        ours = smollm_source.load(info.name).dequantize()
        heads = {"q_proj": 9, "k_proj": 3}.get(info.name.split(".")[-2], 0)
        ours = to_gguf_rows(ours, heads) if heads else ours
        assert np.array_equal(ours, dequantize(tensor.data, tensor.tensor_type)), info.name


def test_names_are_those_of_the_checkpoint(smollm_source: GGUFSource) -> None:
    names = {info.name for info in smollm_source.tensors}
    attention = {f"self_attn.{part}_proj" for part in "qkvo"}
    parts = attention | {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm"}
    layers = {f"model.layers.{layer}.{part}.weight" for layer in range(30) for part in parts}
    assert names == layers | {"model.embed_tokens.weight", "model.norm.weight"}


def test_rows_move_with_their_scales(write_gguf: Write) -> None:
    path = write_gguf(tiny_llama("Q4_1"))
    tensor = GGUFSource(path).load("model.layers.0.self_attn.k_proj.weight")
    assert isinstance(tensor, BlockTensor)
    raw = next(entry for entry in gguf.GGUFReader(path).tensors if entry.name == "blk.0.attn_k.weight")
    assert np.array_equal(
        to_gguf_rows(tensor.dequantize(), KV_HEADS), dequantize(raw.data, gguf.GGMLQuantizationType.Q4_1)
    )


@pytest.mark.parametrize(("rows", "heads"), [(64, 4), (576, 9), (128, 1)])
def test_row_order_undoes_the_converter(rows: int, heads: int) -> None:
    weight = np.arange(rows * 3).reshape(rows, 3)
    assert np.array_equal(to_gguf_rows(weight, heads)[hf_row_order(rows, heads)], weight)


def test_biases_untied_head_and_defaults(write_gguf: Write) -> None:
    model = changed(tiny_llama(), {}, ["llama.attention.head_count_kv", "llama.rope.freq_base"])
    bias = np.arange(HIDDEN, dtype=np.float32)
    for layer in range(2):
        for name in ("attn_k", "attn_v"):
            model.tensor(f"blk.{layer}.{name}.weight").shape = (HIDDEN, HIDDEN)
            model.tensor(f"blk.{layer}.{name}.weight").data = random_blocks((HIDDEN, HIDDEN), "Q4_1", RNG)
        for name in ("attn_q", "attn_k", "attn_v"):
            model.tensors.append(Entry(f"blk.{layer}.{name}.bias", (HIDDEN,), "F32", bias.tobytes()))
    vocab = model.tensor("token_embd.weight")
    model.tensors.append(Entry("output.weight", vocab.shape, "Q8_0", vocab.data))
    source = GGUFSource(write_gguf(model))
    assert source.config["num_key_value_heads"] == HEADS
    assert source.config["rope_theta"] == 10000.0
    assert source.config["attention_bias"]
    assert not source.config["tie_word_embeddings"]
    assert source.load("lm_head.weight").dequantize().shape == vocab.shape
    assert np.array_equal(to_gguf_rows(source.load("model.layers.1.self_attn.q_proj.bias").dequantize(), HEADS), bias)
    assert np.array_equal(source.load("model.layers.1.self_attn.v_proj.bias").dequantize(), bias)


def test_provenance_of_a_local_file(tiny_gguf: Path) -> None:
    digest = file_digest(tiny_gguf)
    assert GGUFSource(tiny_gguf).provenance == Provenance(
        kind="path", location="tiny.gguf", revision=digest, sha256={"tiny.gguf": digest}, licence="apache-2.0"
    )


REQUIRED = ["block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"]


@pytest.mark.parametrize("key", [*REQUIRED, "attention.layer_norm_rms_epsilon"])
def test_missing_metadata_is_named(write_gguf: Write, key: str) -> None:
    path = write_gguf(changed(tiny_llama(), {}, [f"llama.{key}"]))
    with pytest.raises(SourceError, match=rf"model\.gguf: metadata key 'llama\.{key}' is missing"):
        GGUFSource(path)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"llama.block_count": "two"}, "'llama.block_count' is 'two', not int"),
        ({"llama.block_count": 0}, "'llama.block_count' is 0"),
        ({"llama.block_count": 4000000000}, "'llama.block_count' is 4000000000"),
        ({"llama.block_count": 2000000000}, "2000000000 layers, but only 20 tensors"),
        ({"llama.block_count": 3}, "tensor 'blk.2.attn_norm.weight' is missing"),
        ({"llama.block_count": 1}, "tensor 'blk.1.attn_norm.weight' has no place in llama"),
        ({"llama.attention.head_count": 3}, "3 heads cannot share 2 key-value heads"),
        ({"llama.attention.head_count_kv": [2, 2]}, "is a list of 2, not int"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "is nan"),
        (
            {"llama.embedding_length": 128, "llama.attention.key_length": 16},
            "has shape (269, 64); the configuration says (269, 128)",
        ),
        ({"llama.feed_forward_length": 64}, "has shape (96, 64); the configuration says (64, 64)"),
        ({"llama.expert_count": 8}, "mixture of experts"),
        ({"llama.attention.key_length": 8}, "only heads that are rotated as a whole"),
        ({"llama.rope.scaling.type": "ntk"}, "rotary scaling 'ntk' is not supported"),
        ({"llama.rope.scaling.type": "linear"}, "'llama.rope.scaling.factor' is missing"),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 0.0}, "'llama.rope.scaling.factor' is 0.0"),
        ({"split.count": 2}, "model.gguf is one of 2 parts, which its name does not say"),
    ],
)
def test_wrong_metadata_is_explained(write_gguf: Write, metadata: dict[str, object], words: str) -> None:
    path = write_gguf(changed(tiny_llama(), metadata))
    with pytest.raises(SourceError) as caught:
        GGUFSource(path)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["blk.0.ffn_gate_inp.weight", "blk.01.attn_q.weight", "blk.-1.attn_q.weight", "foo"])
def test_tensors_without_a_place_are_refused(write_gguf: Write, name: str) -> None:
    model = tiny_llama()
    model.tensors.append(Entry(name, (32,), "F32", bytes(128)))
    with pytest.raises(UnsupportedModel, match=f"tensor '{name}' has no place in llama"):
        GGUFSource(write_gguf(model))


@pytest.mark.parametrize("name", ["token_embd.weight", "output_norm.weight", "blk.1.ffn_down.weight"])
def test_missing_tensors_are_named(write_gguf: Write, name: str) -> None:
    model = tiny_llama()
    model.drop(name)
    with pytest.raises(SourceError, match=f"'{name}' is missing"):
        GGUFSource(write_gguf(model))


def test_undecodable_types_are_refused_by_type_and_tensor(write_gguf: Write) -> None:
    model = tiny_llama()
    entry = model.tensor("blk.1.ffn_up.weight")
    entry.encoding, entry.shape, entry.data = "IQ2_XXS", (24, 256), bytes(24 * 66)
    with pytest.raises(UnsupportedModel, match=r"'blk\.1\.ffn_up\.weight' is of type IQ2_XXS"):
        GGUFSource(write_gguf(model))


def test_quantized_vectors_are_refused(write_gguf: Write) -> None:
    model = tiny_llama()
    entry = model.tensor("output_norm.weight")
    entry.encoding, entry.data = "Q8_0", bytes(68)
    with pytest.raises(UnsupportedModel, match="a quantized vector"):
        GGUFSource(write_gguf(model))


def test_infinite_scales_are_refused(write_gguf: Write) -> None:
    model = tiny_llama("Q4_0")
    entry = model.tensor("blk.0.ffn_up.weight")
    entry.data = b"\x00\x7c" + entry.data[2:]
    source = GGUFSource(write_gguf(model))
    with pytest.raises(SourceError, match=r"'blk\.0\.ffn_up\.weight' holds values that are not finite"):
        source.load("model.layers.0.mlp.up_proj.weight")


def test_unknown_name(tiny_gguf: Path) -> None:
    with pytest.raises(SourceError, match=r"no tensor for 'model\.nothing'"):
        GGUFSource(tiny_gguf).load("model.nothing")


def test_linear_scaling(write_gguf: Write) -> None:
    metadata = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    assert GGUFSource(write_gguf(changed(tiny_llama(), metadata))).config["rope_scaling"] == {
        "rope_type": "linear",
        "factor": 4.0,
    }


def converter_factors(theta: float, head_dim: int, factor: float) -> list[float]:
    """The loop of llama.cpp's converter (`generate_extra_tensors`), with Llama 3's parameters."""
    low, high, context = 1.0, 4.0, 8192
    factors = []
    for index in range(0, head_dim, 2):
        wavelength = 2 * np.pi * theta ** (index / head_dim)
        if wavelength < context / high:
            factors.append(1.0)
        elif wavelength > context / low:
            factors.append(factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors


def test_llama3_scaling_is_recovered(write_gguf: Write) -> None:
    stored = np.array(converter_factors(500000.0, 16, 32.0), np.float32)
    model = changed(tiny_llama(), {"llama.rope.freq_base": 500000.0})
    model.tensors.append(Entry("rope_freqs.weight", (8,), "F32", stored.tobytes()))
    source = GGUFSource(write_gguf(model))
    scaling = source.config["rope_scaling"]
    assert scaling == {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert np.allclose(llama3_factors(500000.0, 16, scaling), stored, rtol=1e-6)
    assert "rope_freqs.weight" not in {info.name for info in source.tensors}


def test_other_frequency_factors_are_refused(write_gguf: Write) -> None:
    model = tiny_llama()
    stored = np.linspace(1, 8, 8, dtype=np.float32)
    model.tensors.append(Entry("rope_freqs.weight", (8,), "F32", stored.tobytes()))
    with pytest.raises(UnsupportedModel, match="not the scaling of Llama 3"):
        GGUFSource(write_gguf(model))
