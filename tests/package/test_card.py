"""The quality card as rows and as a Markdown page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from edgeai.package.card import card, card_rows, markdown
from edgeai.package.manifest import EncoderInfo, EncoderQuality, Licence, Sample
from edgeai.package.package import Package


@pytest.fixture
def package(make_package: Callable[..., Package]) -> Package:
    """A package whose model answers with markup."""
    samples = (Sample(prompt="2 + 2?", answer="four\n| <b>*not* five</b>", source_answer=None),)
    licence = Licence(spdx="LicenseRef-x", url="https://example.org", note="For research.")
    changed = {"samples": samples, "licence": licence, "licence_accepted": True}
    made = make_package()
    return replace(made, manifest=made.manifest.model_copy(update=changed))


def test_the_card_has_what_was_measured(package: Package) -> None:
    document = card(package)
    manifest = package.manifest
    assert document["quality"]["mean_kl"] == manifest.quality.mean_kl
    ratio = manifest.quality.perplexity / manifest.quality.reference_perplexity
    assert document["quality"]["perplexity_ratio"] == pytest.approx(ratio, rel=1e-3)
    assert document["bytes_per_weight"] == pytest.approx(
        manifest.files["weights.bin"].size / manifest.architecture.parameters, rel=1e-3
    )
    assert document["origin"]["sha256"] == manifest.origin.sha256
    assert document["licence"] | {"open": False, "accepted": True} == document["licence"]
    assert document["digest"] == package.digest


def test_rows_say_it_in_words(package: Package) -> None:
    rows = dict(card_rows(card(package)))
    assert "not open, accepted" in rows["licence"]
    assert rows["what it allows"] == "For research."
    assert "bytes per weight" in rows["size"]
    assert "nats per token" in rows["mean KL"]


def test_the_card_of_an_encoder_has_cosines(make_package: Callable[..., Package]) -> None:
    measured = EncoderQuality(reference="float model", texts=9, mean_cosine=0.999, min_cosine=0.99)
    encoder = EncoderInfo(dimension=4, max_length=16, pooling="mean", quality=measured)
    made = make_package()
    changed = {"kind": "embedder", "quality": None, "encoder": encoder}
    document = card(replace(made, manifest=made.manifest.model_copy(update=changed)))
    assert document["quality"]["min_cosine"] == 0.99
    assert dict(card_rows(document))["cosine to the float model"] == "0.999 on average, 0.99 at least"
    assert "0.999 on average" in markdown(document)


def test_markdown_cannot_be_broken_by_what_a_model_says(package: Package) -> None:
    page = markdown(card(package))
    (line,) = [line for line in page.splitlines() if "2 + 2?" in line]
    assert line == "| 2 + 2? | four \\| \\<b\\>\\*not\\* five\\</b\\> | not asked |"
