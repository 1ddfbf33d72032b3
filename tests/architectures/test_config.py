"""A decoder's configuration: what is missing, impossible or unsupported is named."""

from __future__ import annotations

import math

import pytest

from edgeai.architectures.config import LayerConfig
from edgeai.architectures.keys import Keys
from edgeai.architectures.registry import decoder_config
from edgeai.architectures.rope import read_rope
from edgeai.errors import InvalidInput, SourceError, UnsupportedModel
from tests.fixtures.tiny import CONFIG

REQUIRED = [
    "hidden_size",
    "num_attention_heads",
    "vocab_size",
    "intermediate_size",
    "num_hidden_layers",
    "max_position_embeddings",
]
OPTIONAL = {"num_key_value_heads": 4, "head_dim": 16, "rope_theta": 10000.0, "rms_norm_eps": 1e-6}
IMPOSSIBLE = [0, -1, math.nan, math.inf, -math.inf, True, "64", [64], {}]


def test_every_key_is_read() -> None:
    config = decoder_config(CONFIG)
    assert (config.model_type, config.vocab_size, config.hidden_size, config.intermediate_size) == (
        "llama",
        96,
        64,
        128,
    )
    assert (config.num_layers, config.num_heads, config.num_kv_heads, config.head_size) == (2, 4, 2, 16)
    assert (config.context_length, config.norm_epsilon, config.activation) == (512, 1e-5, "silu")
    assert config.attention_scale == 0.25
    assert config.layers == (LayerConfig(read_rope(Keys({"rope_theta": 10000.0}), 16)),) * 2
    assert config.tied_embeddings
    assert (config.query_size, config.kv_size) == (64, 32)


@pytest.mark.parametrize("key", REQUIRED)
@pytest.mark.parametrize("absent", ["missing", "null"])
def test_a_missing_key_is_named(key: str, absent: str) -> None:
    config = {name: value for name, value in CONFIG.items() if name != key}
    with pytest.raises(SourceError, match=f"{key} is missing") as caught:
        decoder_config(config | ({key: None} if absent == "null" else {}))
    assert caught.value.hint


@pytest.mark.parametrize("value", IMPOSSIBLE, ids=repr)
@pytest.mark.parametrize("key", [*REQUIRED, *OPTIONAL])
def test_an_impossible_value_is_named(key: str, value: object) -> None:
    with pytest.raises(SourceError, match=f"{key} is ") as caught:
        decoder_config({**CONFIG, key: value})
    assert repr(value) in caught.value.message


@pytest.mark.parametrize("key", [*REQUIRED, "num_key_value_heads", "head_dim"])
def test_sizes_are_whole_numbers(key: str) -> None:
    with pytest.raises(SourceError, match=rf"{key} is 2\.5, not a positive int"):
        decoder_config({**CONFIG, key: 2.5})


@pytest.mark.parametrize(("key", "default"), OPTIONAL.items())
def test_defaults_are_hugging_face_s(key: str, default: float) -> None:
    config = decoder_config({name: value for name, value in CONFIG.items() if name != key})
    assert config == decoder_config({**CONFIG, key: default})


def test_heads_are_untied_unless_the_config_says_so() -> None:
    assert not decoder_config(
        {name: value for name, value in CONFIG.items() if name != "tie_word_embeddings"}
    ).tied_embeddings


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rope_scaling": {"rope_type": "spiral", "factor": 8.0}}, "rope_scaling 'spiral'"),
        ({"rope_scaling": "yarn"}, "yarn"),
        ({"model_type": "qwen3", "use_sliding_window": True, "layer_types": ["full_attention", "linear"]}, "'linear'"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"model_type": "minicpm", "num_experts": 8}, "num_experts"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is not supported for llama"),
        ({"model_type": "glm4", "head_dim": 16}, "8 values of a head are rotated"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"head_dim": 24}, "head size 24"),
    ],
)
def test_what_the_blocks_lack_is_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(UnsupportedModel, match=word) as caught:
        decoder_config({**CONFIG, **changes})
    assert caught.value.hint


def test_heads_have_to_divide_among_kv_heads() -> None:
    with pytest.raises(SourceError, match="4 attention heads do not divide among 3 KV heads"):
        decoder_config({**CONFIG, "num_key_value_heads": 3})


@pytest.mark.parametrize("neutral", [{"rope_scaling": None}, {"rope_scaling": {}}, {"attention_bias": False}])
def test_neutral_values_are_accepted(neutral: dict[str, object]) -> None:
    assert decoder_config({**CONFIG, **neutral}) == decoder_config(CONFIG)


@pytest.mark.parametrize("context", [1, 100, 512])
def test_a_package_may_be_made_for_a_shorter_context(context: int) -> None:
    assert decoder_config(CONFIG, context).context_length == context


@pytest.mark.parametrize("context", [0, -1, 513])
def test_a_context_that_the_model_does_not_have_is_refused(context: int) -> None:
    with pytest.raises(InvalidInput, match="good for 512") as caught:
        decoder_config(CONFIG, context)
    assert caught.value.param == "context"


def test_windows_need_a_layer_list_of_the_right_length() -> None:
    with pytest.raises(SourceError, match="layer_types is a list of 1, not a list of 2"):
        decoder_config({**CONFIG, "model_type": "gemma2", "layer_types": ["full_attention"]})


def test_mistral_windows_are_on_unless_null() -> None:
    absent, null = {**CONFIG, "model_type": "mistral", "max_position_embeddings": 8192}, {"sliding_window": None}
    assert [layer.window for layer in decoder_config(absent).layers] == [4096] * 2
    assert [layer.window for layer in decoder_config({**absent, **null}).layers] == [None] * 2


@pytest.mark.parametrize(("first", "windows"), [(0, [24, 24]), (1, [None, 24]), (2, [None, None])])
def test_windows_from_a_layer_on(first: int, windows: list[int | None]) -> None:
    sliding = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": first}
    assert [layer.window for layer in decoder_config({**CONFIG, "model_type": "qwen2", **sliding}).layers] == windows


@pytest.mark.parametrize(
    ("model_type", "key", "more"),
    [
        ("qwen2", "max_window_layers", {"use_sliding_window": True}),
        ("gemma3_text", "rope_local_base_freq", {}),
        ("gemma3_text", "sliding_window_pattern", {}),
        ("gemma2", "query_pre_attn_scalar", {}),
        ("gemma2", "attn_logit_softcapping", {}),
        ("granite", "logits_scaling", {}),
        ("minicpm", "scale_depth", {}),
        ("smollm3", "no_rope_layers", {}),
        ("phi3", "partial_rotary_factor", {}),
    ],
)
@pytest.mark.parametrize("value", ["x", -1], ids=repr)
def test_impossible_values_of_single_architectures_are_named(
    model_type: str, key: str, more: dict[str, object], value: object
) -> None:
    with pytest.raises(SourceError, match=f"{key} is "):
        decoder_config({**CONFIG, "model_type": model_type, **more, key: value})


def test_defaults_of_the_text_part_of_gemma_3() -> None:
    """Published checkpoints with a vision part say no more than this."""
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    scaling = {"factor": 8.0, "rope_type": "linear"}
    config = decoder_config({**text, "rope_scaling": scaling, "model_type": "gemma3_text"})
    assert (config.num_heads, config.num_kv_heads, config.head_size, config.vocab_size) == (8, 4, 256, 262208)
    assert [layer.window for layer in config.layers[:7]] == [1024] * 5 + [None, 1024]
    local, everywhere = config.layers[0].rope, config.layers[5].rope
    assert local is not None
    assert everywhere is not None
    assert (local.frequencies[0], everywhere.frequencies[0]) == (1.0, 1 / 8)
    assert config.tied_embeddings
