"""GGUF files of every kind through the whole build, into the engine and back to text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeai.build.pipeline import build_package
from edgeai.engine.config import EngineSettings
from edgeai.engine.request import SamplingParams
from edgeai.model import Model
from edgeai.package.package import Package
from tests.fixtures.gguf_files import GGUF, random_blocks, tiny_llama
from tests.fixtures.sentencepieces import described, in_gguf, processor

SETTINGS = EngineSettings(threads=1, max_rows=2, kv_budget_bytes=8 << 20)


def build(file: GGUF, folder: Path) -> Package:
    (folder / "weights.gguf").write_bytes(file.to_bytes())
    return Package.open(
        build_package(str(folder / "weights.gguf"), out=folder / "p", home=folder, cache=folder).package
    )


def with_random_table(file: GGUF) -> GGUF:
    table = file.tensor("token_embd.weight")
    table.data = random_blocks(table.shape, table.encoding, np.random.default_rng(2), scale=20)
    return file


@pytest.mark.parametrize("name", ["bpe", "bpe without prefix", "unigram with bytes"])
def test_a_sentencepiece_model_is_built_and_answers(name: str, tmp_path: Path) -> None:
    package = build(with_random_table(in_gguf(name)), tmp_path)
    text = "Hello, world! naïve façade, 日本語 ☃\n  two spaces"
    with Model.load(package, SETTINGS) as model:
        ids = model.tokenizer.encode(text)
        assert ids == processor(name).encode(text)
        assert model.tokenizer.decode(ids).removeprefix(" " * described(name).add_space_prefix) == text
        prompt = model.encode_chat([{"role": "user", "content": text}])
        assert (prompt[0] == 1) == name.startswith("bpe")  # SentencePiece's BPE models begin with BOS
        chunks = list(model.chat([{"role": "user", "content": text}], SamplingParams(max_tokens=8, temperature=0.0)))
        tokens = [token for chunk in chunks for token in chunk.token_ids]
        assert 1 <= len(tokens) <= 8
        assert "".join(chunk.text for chunk in chunks) == model.tokenizer.decode(tokens)


def test_matrices_of_one_group_on_different_grids(tmp_path: Path) -> None:
    """As in a Q4_K_M file, where some of the values and of the last products have six bits."""
    file = tiny_llama("Q4_K", hidden=256, table="Q6_K")
    for name in ("blk.0.attn_v.weight", "blk.1.ffn_down.weight", "blk.0.ffn_up.weight"):
        entry = file.tensor(name)
        entry.encoding, entry.data = "Q6_K", random_blocks(entry.shape, "Q6_K", np.random.default_rng(3))
    package = build(file, tmp_path)
    assert package.manifest.quantization.tensor_types == {"F32": 5, "Q4_K": 11, "Q6_K": 4}
    assert package.manifest.quality.mean_kl < 0.01
