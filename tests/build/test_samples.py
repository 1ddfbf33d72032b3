"""Sample answers for the quality card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgeai.architectures.registry import decoder_config, reference_logits
from edgeai.build import samples
from edgeai.build.pipeline import build_package
from edgeai.onnx_session import OnnxSession
from edgeai.package import Package
from tests.fixtures.tiny import TinySource

PROMPT = [5, 17, 40, 3]


def naive(source: TinySource, prompt: list[int], limit: int, ends: frozenset[int]) -> list[int]:
    """One numpy pass for each token."""
    output: list[int] = []
    while len(output) < limit:
        token = int(reference_logits(source.config, source.load, [*prompt, *output])[-1].argmax())
        if token in ends:
            break
        output.append(token)
    return output


@pytest.mark.parametrize("ends", [frozenset[int](), frozenset({7}), frozenset(range(48))])
def test_the_sources_answer_is_its_own_whatever_is_drafted(
    ends: frozenset[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "MOST_PASSES", 8)
    source = TinySource()
    config = decoder_config(source.config)
    expected = naive(source, PROMPT, 7, ends)
    rng = np.random.default_rng(3)

    def wrong(_ids: Sequence[int], limit: int) -> list[int]:
        return rng.integers(0, 96, limit).tolist()

    def right(ids: Sequence[int], limit: int) -> list[int]:
        return naive(source, list(ids), limit, ends)

    def nothing(_ids: Sequence[int], _limit: int) -> list[int]:
        return []

    for draft in (wrong, right, nothing):
        assert samples.source_answer(config, source.load, PROMPT, draft, ends, 7) == expected


def test_an_answer_that_takes_too_many_passes_is_cut() -> None:
    source = TinySource()
    config = decoder_config(source.config)
    answer = samples.source_answer(config, source.load, PROMPT, lambda _ids, _limit: [], frozenset(), 50)
    assert answer == naive(source, PROMPT, samples.MOST_PASSES, frozenset())


def test_the_packages_answer_is_that_of_its_graph(tiny_graph: Path) -> None:
    """The tiny graph is a float one: it says what numpy says."""
    source = TinySource()
    session = OnnxSession(tiny_graph, threads=1)
    config = decoder_config(source.config)
    ends = frozenset({7})
    assert samples.continuation(session, config, PROMPT, 12, ends) == naive(source, PROMPT, 12, ends)


def test_a_build_records_them(tiny_gguf: Path, tmp_path: Path) -> None:
    where = {"home": tmp_path, "cache": tmp_path}
    found = Package.open(build_package(str(tiny_gguf), out=tmp_path / "a", **where).package).manifest.samples
    assert [sample.prompt for sample in found] == list(samples.QUESTIONS)
    assert all(sample.answer for sample in found)
    assert {sample.source_answer for sample in found} == {None}
    report = build_package(str(tiny_gguf), out=tmp_path / "b", source_samples=True, **where)
    both = Package.open(report.package).manifest.samples
    assert [sample.answer for sample in both] == [sample.answer for sample in found]
    assert all(sample.source_answer for sample in both)
