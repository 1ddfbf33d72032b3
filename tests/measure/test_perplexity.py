"""Perplexity: the protocol against a plain oracle, and the real package against float32."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeai.architectures.registry import reference_logits
from edgeai.build.pipeline import build_package
from edgeai.build.validate import log_softmax
from edgeai.engine.config import EngineSettings, KVType
from edgeai.errors import InvalidInput
from edgeai.measure.perplexity import PIECE, chunk_losses, divergence, perplexity
from edgeai.model import Model, default_settings
from edgeai.package.package import Package
from edgeai.recipe import QuantizationPlan
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.weights import WeightSource
from tests.fixtures.gguf_files import random_blocks, tiny_llama
from tests.fixtures.sources import DATA

TEXT = (DATA / "held_out.txt").read_text(encoding="utf-8")
CONTEXT = 256


def plain_losses(source: WeightSource, ids: list[int]) -> list[float]:
    """Losses of the second half of one chunk, each given all before it, by the numpy reference."""
    probabilities = log_softmax(reference_logits(source.config, source.load, ids))
    return [-float(probabilities[at, ids[at + 1]]) for at in range(len(ids) // 2, len(ids) - 1)]


def make_tiny(folder: Path, **metadata: object) -> tuple[Model, GGUFSource]:
    document = tiny_llama("F32")
    table = document.tensor("token_embd.weight")  # as floats too: nothing is rounded to 8 bits
    table.data, table.encoding = random_blocks(table.shape, "F32", np.random.default_rng(2)), "F32"
    document.metadata |= {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}
    path = folder / "tiny.gguf"
    path.write_bytes(document.to_bytes())
    report = build_package(str(path), out=folder / "package", home=folder, cache=folder)
    model = Model.load(Package.open(report.package), EngineSettings(threads=1, kv_budget_bytes=1 << 20))
    return model, GGUFSource(path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Model, GGUFSource]]:
    model, source = make_tiny(tmp_path_factory.mktemp("perplexity"))
    with model:
        yield model, source


@pytest.mark.parametrize("context", [4, 5, 63, PIECE, PIECE + 1, 2 * PIECE, 200])
def test_equals_the_plain_protocol(tiny, context: int) -> None:
    """Chunks are read from an empty cache; what is left over at the end is not scored."""
    model, source = tiny
    text = TEXT[:450]
    ids = model.encode_text(text)
    starts = range(0, len(ids) - context + 1, context)
    losses = [loss for start in starts for loss in plain_losses(source, ids[start : start + context])]
    result = perplexity(model, text, context=context)
    assert result.chunks == len(starts) == len(ids) // context
    assert result.tokens == len(losses) == result.chunks * (context - context // 2 - 1)
    assert result.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)


def test_bos_takes_the_place_of_a_chunk_s_first_token(tmp_path: Path) -> None:
    model, source = make_tiny(tmp_path, add_bos_token=True)
    text, context, bos = TEXT[:300], 64, 1
    ids = model.encode_text(text)
    assert ids[0] == bos
    chunks = [[bos, *ids[start + 1 : start + context]] for start in range(0, len(ids) - context + 1, context)]
    losses = [loss for chunk in chunks for loss in plain_losses(source, chunk)]
    result = perplexity(model, text, context=context)
    assert result.tokens == len(losses)
    assert result.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)


def test_losses_are_those_of_the_second_half(tiny) -> None:
    model, source = tiny
    ids = model.encode_text(TEXT)[:150]
    losses = chunk_losses(model.engine.runner, ids)
    assert np.allclose(losses, plain_losses(source, ids), atol=1e-3)
    assert not model.engine.runner.arena.occupied


def test_progress_is_told(tiny) -> None:
    seen = []
    result = perplexity(tiny[0], TEXT[:450], context=100, progress=lambda *news: seen.append(news))
    assert seen == [("evaluate", number + 1, result.chunks) for number in range(result.chunks)]


def test_a_text_that_is_too_short(tiny) -> None:
    with pytest.raises(InvalidInput, match=r"the text has \d+ tokens, less than one chunk of 128"):
        perplexity(tiny[0], TEXT[:80], context=128)
    with pytest.raises(InvalidInput, match="has 0 tokens"):
        perplexity(tiny[0], "", context=128)


@pytest.mark.parametrize("context", [-1, 0, 3, 257, 10**9])
def test_a_context_out_of_range(tiny, context: int) -> None:
    with pytest.raises(InvalidInput, match=f"context is {context}; it has to be between 4 and 256") as caught:
        perplexity(tiny[0], TEXT, context=context)
    assert caught.value.param == "context"


def test_the_real_package_is_as_good_as_float32(smollm_package: Package, smollm_source: GGUFSource) -> None:
    """What the package was made for: the transcoded model within 1 % of the dequantized float32 weights."""
    settings = EngineSettings(max_rows=1, max_context=CONTEXT)
    with Model.load(smollm_package, settings) as model:
        ids = model.encode_text(TEXT[:3600])
        result = perplexity(model, TEXT[:3600], context=CONTEXT)
    losses = [
        loss
        for start in range(0, len(ids) - CONTEXT + 1, CONTEXT)
        for loss in plain_losses(smollm_source, ids[start : start + CONTEXT])
    ]
    assert result.tokens == len(losses) > 350
    assert result.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=0.01)
    assert 5 < result.perplexity < 40  # a model that understands English prose


def test_a_model_does_not_diverge_from_itself(tiny) -> None:
    model, _ = tiny
    found = divergence(model, model, TEXT[:300], context=64)
    assert found.measured == found.reference == perplexity(model, TEXT[:300], context=64)
    assert (found.mean_kl, found.p99_kl, found.max_kl, found.top_token_agreement) == (0, 0, 0, 1)


def test_divergence_is_that_of_the_reference_s_probabilities(tiny, tmp_path: Path) -> None:
    """Of a model whose weights were rounded, against logits of whole chunks at once."""
    model, source = tiny
    options = {"out": tmp_path / "coarse", "home": tmp_path, "cache": tmp_path}
    package = build_package(str(source.path), quantization=QuantizationPlan(scheme="rtn", bits=4), **options).package
    with Model.load(Package.open(package), EngineSettings(threads=1, kv_budget_bytes=1 << 20)) as coarse:
        found = divergence(coarse, model, TEXT[:200], context=64)
        assert found.measured == perplexity(coarse, TEXT[:200], context=64)
        ids = model.encode_text(TEXT[:200])
        wanted = [
            each for start in range(0, len(ids) - 63, 64) for each in apart(coarse, model, ids[start : start + 64])
        ]
    assert found.mean_kl == pytest.approx(np.mean(wanted), rel=1e-3)
    assert found.max_kl == pytest.approx(max(wanted), rel=1e-3)
    assert 0 < found.mean_kl < found.p99_kl <= found.max_kl


def apart(model: Model, reference: Model, ids: list[int]) -> list[float]:
    """KL of the second half of a chunk, from logits of the whole of it in one run."""
    rows = []
    for each in (model, reference):
        runner = each.engine.runner
        runner.arena.grow(0, len(ids))
        rows.append(log_softmax(runner.score(0, ids, 0)))
        runner.arena.release(0)
    measured, expected = (each[len(ids) // 2 : -1] for each in rows)
    return [float(value) for value in (np.exp(expected) * (expected - measured)).sum(axis=1)]


@pytest.mark.slow
def test_an_int8_cache_hardly_changes_a_real_model(smollm_package: Package) -> None:
    def load(kind: KVType) -> Model:
        return Model.load(smollm_package, default_settings(smollm_package.manifest, threads=1, kv_type=kind))

    with load("int8") as int8, load("float32") as exact:
        found = divergence(int8, exact, TEXT[:2500], context=512)
    assert 0 < found.mean_kl < 0.02
    assert found.measured.perplexity == pytest.approx(found.reference.perplexity, rel=0.02)
    assert found.top_token_agreement > 0.9
