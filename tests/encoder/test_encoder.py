"""A whole encoder beside the numpy oracle of its graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeai.encoder.batches import Limits
from edgeai.encoder.encoder import Encoder, prompt_for
from edgeai.encoder.ranking import ranked
from edgeai.errors import ContextLengthExceeded, InvalidInput
from edgeai.model import Model
from edgeai.package.manifest import EncoderInfo, EncoderQuality
from edgeai.package.package import Package
from tests.fixtures.encoders import WIDTH, encoder_package, oracle, weights, words

TEXTS = [words(count, start) for start, count in enumerate([3, 12, 3, 1, 25, 12, 7, 3])]


def expected(encoder: Encoder, text: str) -> np.ndarray:
    (tokens,) = encoder.tokenizer.encode([text])
    mean = oracle(weights(), tokens.ids, tokens.types, head=False).mean(axis=0)
    return mean / np.linalg.norm(mean)


def test_vectors_are_the_oracles(exact: Encoder) -> None:
    vectors = exact.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), WIDTH)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [expected(exact, text) for text in TEXTS], atol=1e-5)


def test_int8_is_near_to_float(exact: Encoder, embedder: Encoder) -> None:
    cosines = (exact.embed(TEXTS) * embedder.embed(TEXTS)).sum(axis=1)
    assert cosines.min() > 0.999
    assert np.abs(exact.embed(TEXTS) - embedder.embed(TEXTS)).max() > 1e-5  # it is another graph


def test_what_runs_beside_a_text_does_not_matter(embedder: Encoder) -> None:
    """In int8 too: every token has a scale of its own."""
    together = embedder.embed(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(embedder.embed([text])[0], vector, atol=2e-6)


def test_cls_pooling_without_normalization(encoder_folder: Path, exact: Encoder) -> None:
    package = encoder_package(encoder_folder, name="cls", exact=True, pooling="cls", normalize=False)
    (tokens,) = exact.tokenizer.encode([TEXTS[1]])
    first = oracle(weights(), tokens.ids, tokens.types, head=False)[0]
    np.testing.assert_allclose(Encoder(package, threads=1).embed([TEXTS[1]])[0], first, rtol=1e-4, atol=1e-4)


def test_scores_are_the_oracles(reranker: Encoder) -> None:
    scores = reranker.rerank(words(3), TEXTS)
    for tokens, score in zip(reranker.tokenizer.encode_pairs(words(3), TEXTS), scores, strict=True):
        (logit,) = oracle(weights(), tokens.ids, tokens.types, head=True)
        assert score == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
    assert scores.std() > 0.01


def test_runs_stay_within_the_limits(encoder_folder: Path, exact: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(exact.package, threads=1, limits=Limits(tokens=30, scores=300))
    runs = []
    run = encoder.graph.run
    monkeypatch.setattr(encoder.graph, "run", lambda sequences: runs.append(len(sequences)) or run(sequences))
    np.testing.assert_allclose(encoder.embed(TEXTS * 4), exact.embed(TEXTS * 4), atol=1e-6)
    assert max(runs) > 1
    assert len(runs) > len({len(text) for text in TEXTS})


def test_too_long(exact: Encoder) -> None:
    with pytest.raises(ContextLengthExceeded, match="52 tokens, but this model reads at most 32"):
        exact.embed([words(50)])
    np.testing.assert_array_equal(exact.embed([words(50)], truncate=True), exact.embed([words(30)]))


def test_a_length_that_needs_too_much_memory_is_not_offered(encoder_folder: Path) -> None:
    package = encoder_package(encoder_folder, name="long", max_length=100_000)
    assert Encoder(package, threads=1).max_length == 8192  # 8192 ** 2 float32 scores are 256 MiB


def info(**fields: object) -> EncoderInfo:
    quality = EncoderQuality(reference="", texts=1, mean_cosine=1, min_cosine=1)
    return EncoderInfo.model_validate({"dimension": 4, "max_length": 32, "quality": quality, **fields})


def test_prompts() -> None:
    e5 = info(prompts={"query": "query: ", "passage": "passage: "})
    assert prompt_for(e5, None) == ""
    assert {prompt_for(e5, name) for name in ("query", "search_query")} == {"query: "}
    assert {prompt_for(e5, name) for name in ("passage", "document", "search_document")} == {"passage: "}
    with pytest.raises(InvalidInput, match="no prompt 'poem'") as refused:
        prompt_for(e5, "poem")
    assert (refused.value.param, refused.value.hint) == ("input_type", "there is passage, query")
    assert prompt_for(info(prompts={"query": "q: "}, default_prompt="query"), None) == "q: "
    with pytest.raises(InvalidInput, match="no prompt 'passage'"):
        prompt_for(info(prompts={"query": "q: "}), "passage")
    assert prompt_for(info(), "query") == prompt_for(info(), "passage") == ""
    with pytest.raises(InvalidInput, match="no prompt 'classification'"):
        prompt_for(info(), "classification")


def test_a_prompt_is_put_before_the_text(encoder_folder: Path) -> None:
    package = encoder_package(encoder_folder, name="prompted", exact=True, prompts={"query": "w9 "})
    encoder = Encoder(package, threads=1)
    np.testing.assert_array_equal(encoder.embed(["w1 w2"], prompt="query"), encoder.embed(["w9 w1 w2"]))


def test_every_kind_is_refused_where_it_does_not_belong(
    embedder: Encoder, reranker: Encoder, smollm_package: Package
) -> None:
    with pytest.raises(InvalidInput, match="tiny-reranker is a reranker, not an embedding model"):
        reranker.embed(["w1"])
    with pytest.raises(InvalidInput, match="tiny-embedder is an embedding model, not a reranker"):
        embedder.rerank("w1", ["w2"])
    with pytest.raises(InvalidInput, match="smollm2-135m-instruct is a language model"):
        Encoder(smollm_package)
    for encoder, what in ((embedder, "an embedding model"), (reranker, "a reranker")):
        with pytest.raises(InvalidInput, match=f"is {what}: it writes no text"):
            Model.load(encoder.package)


def test_ranked() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.1], np.float32)
    assert [place for place, _ in ranked(scores)] == [1, 0, 2, 3]
    assert ranked(scores, 1) == [(1, pytest.approx(0.9))]
    assert len(ranked(scores, 100)) == 4
