"""A small but complete package, to damage and to move about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeai.package import Package, PackageWriter
from edgeai.package.manifest import Architecture, Licence, Manifest, Origin, Quality, Quantization, TokenIds
from tests.package.stored_blocks import Clock

CONTENT = {
    "model.onnx": b"a graph",
    "weights.bin": bytes(range(256)) * 64,
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "LICENSE": b"do as you like",
}


def small_manifest(name: str = "small") -> Manifest:
    """A manifest without files: `publish` fills those in."""
    return Manifest(
        name=name,
        files={},
        licence=Licence(spdx="MIT"),
        origin=Origin(kind="path", location="small.gguf", revision="", sha256={"small.gguf": "0" * 64}, builder="test"),
        architecture=Architecture(
            model_type="llama", vocab_size=8, hidden_size=4, num_layers=1, num_heads=1, num_kv_heads=1, head_size=4,
            context_length=16, parameters=100,
        ),
        tokens=TokenIds(eos=(2,), bos=1),
        quantization=Quantization(scheme="source", bits_per_weight=5.0, tensor_types={"Q4_1": 3}),
        quality=Quality(
            reference="numpy", tokens=10, mean_kl=0.001, max_kl=0.01, max_logit_difference=0.1, top_token_agreement=1.0,
            perplexity=19.0, reference_perplexity=19.0,
        ),
    )  # fmt: skip


def write_package(target: Path, name: str = "small", **content: bytes) -> Package:
    """Write a package; `content` replaces that of files, dots written as underscores."""
    replaced = {key.replace(".", "_"): key for key in CONTENT}
    with PackageWriter(target) as writer:
        for file, data in (CONTENT | {replaced[key]: value for key, value in content.items()}).items():
            writer.write(file, data)
        return writer.publish(small_manifest(name))


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[..., Package]:
    def make(name: str = "small", **content: bytes) -> Package:
        return write_package(tmp_path / "made" / name, name, **content)

    return make


@pytest.fixture
def clock() -> Clock:
    return Clock()
