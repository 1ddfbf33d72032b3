"""A decoder's configuration: what is missing, impossible or unsupported is named."""

from __future__ import annotations

import math

import pytest

from edgeai.architectures.config import read_config
from edgeai.errors import SourceError, UnsupportedModel
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
    config = read_config(CONFIG)
    assert (config.model_type, config.vocab_size, config.hidden_size, config.intermediate_size) == (
        "llama",
        96,
        64,
        128,
    )
    assert (config.num_layers, config.num_heads, config.num_kv_heads, config.head_size) == (2, 4, 2, 16)
    assert (config.context_length, config.rope_theta, config.norm_epsilon) == (512, 10000.0, 1e-5)
    assert config.tied_embeddings
    assert (config.query_size, config.kv_size) == (64, 32)


@pytest.mark.parametrize("key", REQUIRED)
@pytest.mark.parametrize("absent", ["missing", "null"])
def test_a_missing_key_is_named(key: str, absent: str) -> None:
    config = {name: value for name, value in CONFIG.items() if name != key}
    with pytest.raises(SourceError, match=f"{key} is missing") as caught:
        read_config(config | ({key: None} if absent == "null" else {}))
    assert caught.value.hint


@pytest.mark.parametrize("value", IMPOSSIBLE, ids=repr)
@pytest.mark.parametrize("key", [*REQUIRED, *OPTIONAL])
def test_an_impossible_value_is_named(key: str, value: object) -> None:
    with pytest.raises(SourceError, match=f"{key} is ") as caught:
        read_config({**CONFIG, key: value})
    assert repr(value) in caught.value.message


@pytest.mark.parametrize("key", [*REQUIRED, "num_key_value_heads", "head_dim"])
def test_sizes_are_whole_numbers(key: str) -> None:
    with pytest.raises(SourceError, match=rf"{key} is 2\.5, not a positive int"):
        read_config({**CONFIG, key: 2.5})


@pytest.mark.parametrize(("key", "default"), OPTIONAL.items())
def test_defaults_are_hugging_face_s(key: str, default: float) -> None:
    config = read_config({name: value for name, value in CONFIG.items() if name != key})
    names = {"num_key_value_heads": "num_kv_heads", "head_dim": "head_size", "rms_norm_eps": "norm_epsilon"}
    assert getattr(config, names.get(key, key)) == default


def test_heads_are_untied_unless_the_config_says_so() -> None:
    assert not read_config(
        {name: value for name, value in CONFIG.items() if name != "tie_word_embeddings"}
    ).tied_embeddings


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "llama3"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
        ({"rope_scaling": "yarn"}, "yarn"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"head_dim": 24}, "head size 24"),
    ],
)
def test_what_the_blocks_lack_is_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(UnsupportedModel, match=word):
        read_config({**CONFIG, **changes})


def test_heads_have_to_divide_among_kv_heads() -> None:
    with pytest.raises(SourceError, match="4 attention heads do not divide among 3 KV heads"):
        read_config({**CONFIG, "num_key_value_heads": 3})


@pytest.mark.parametrize("neutral", [{"rope_scaling": None}, {"rope_scaling": {}}, {"attention_bias": False}])
def test_neutral_values_are_accepted(neutral: dict[str, object]) -> None:
    assert read_config({**CONFIG, **neutral}) == read_config(CONFIG)
