"""The quality card of a package: what it is, where it comes from, and how near its source it was measured to be."""

from __future__ import annotations

from typing import Any

from edgeai.licences import is_open
from edgeai.package.manifest import WEIGHTS_NAME
from edgeai.package.package import Package

Rows = list[tuple[str, str]]


def card(package: Package) -> dict[str, Any]:
    """Everything on the card, as JSON."""
    manifest = package.manifest
    quality = manifest.measured.model_dump(mode="json")
    weights = manifest.files[WEIGHTS_NAME].size
    return {
        "name": manifest.name,
        "description": manifest.description,
        "digest": package.digest,
        "size_bytes": package.size_bytes,
        "parameters": manifest.architecture.parameters,
        "model_type": manifest.architecture.model_type,
        "context_length": manifest.architecture.context_length,
        "bytes_per_weight": round(weights / manifest.architecture.parameters, 4),
        "quantization": manifest.quantization.model_dump(mode="json"),
        "quality": quality | ({"perplexity_ratio": _ratio(quality)} if manifest.quality else {}),
        "warm": [blocks.model_dump(mode="json") for blocks in manifest.warm],
        "samples": [sample.model_dump(mode="json") for sample in manifest.samples],
        "licence": manifest.licence.model_dump(mode="json")
        | {"open": is_open(manifest.licence.spdx), "accepted": manifest.licence_accepted},
        "origin": manifest.origin.model_dump(mode="json"),
    }


def card_rows(document: dict[str, Any]) -> Rows:
    """The card's figures in words, one row each, without the samples."""
    return [*_what(document), *_quality(document["quality"]), *_papers(document)]


def markdown(document: dict[str, Any]) -> str:
    """The card as a Markdown page."""
    lines = [f"# {document['name']}", ""]
    if document["description"]:
        lines += [_plain(document["description"]), ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {name} | {_plain(value)} |" for name, value in card_rows(document)]
    if document["samples"]:
        lines += ["", "## Sample answers", "", "| prompt | this package | its source |", "|---|---|---|"]
        for sample in document["samples"]:
            parts = (sample["prompt"], sample["answer"], sample["source_answer"] or "not asked")
            lines.append("| " + " | ".join(_plain(part) for part in parts) + " |")
        lines += ["", "The likeliest tokens, 16 at most; an answer of the source may be cut earlier."]
    return "\n".join(lines) + "\n"


def _what(document: dict[str, Any]) -> Rows:
    quantization = document["quantization"]
    kinds = ", ".join(f"{count} x {kind}" for kind, count in quantization["tensor_types"].items())
    return [
        ("model", f"{document['model_type']}, {document['parameters'] / 1e6:,.1f} M parameters"),
        ("context", f"{document['context_length']} tokens"),
        ("size", f"{document['size_bytes'] / 1e6:,.1f} MB, {document['bytes_per_weight']:.3f} bytes per weight"),
        ("stored as", f"{quantization['scheme']}, {quantization['bits_per_weight']:.2f} bits per weight ({kinds})"),
        *[("precomputed prompts", _warm(blocks)) for blocks in document["warm"]],
    ]


def _warm(blocks: dict[str, Any]) -> str:
    tokens = ", ".join(map(str, blocks["prompts"]))
    return f"{tokens} tokens, for a KV cache of {blocks['kv_type']} in blocks of {blocks['block_tokens']}"


def _quality(quality: dict[str, Any]) -> Rows:
    if "mean_cosine" in quality:
        return _encoder_quality(quality)
    rows = [
        ("mean KL", f"{quality['mean_kl']} nats per token"),
        ("99th percentile of KL", f"{quality['p99_kl']} nats" if quality.get("p99_kl") is not None else ""),
        ("largest KL", f"{quality['max_kl']} nats"),
        ("same likeliest token", f"{100 * quality['top_token_agreement']:.1f} %"),
        ("perplexity", f"{quality['perplexity']} beside {quality['reference_perplexity']}, {_times(quality)}"),
        ("measured against", f"{quality['reference']}, on {quality['tokens']} tokens"),
    ]
    return [(name, value) for name, value in rows if value]


def _encoder_quality(quality: dict[str, Any]) -> Rows:
    scores = quality["max_score_difference"]
    rows = [
        ("cosine to the float model", f"{quality['mean_cosine']} on average, {quality['min_cosine']} at least"),
        ("largest difference of scores", f"{scores}" if scores is not None else ""),
        ("measured against", f"{quality['reference']}, on {quality['texts']} texts"),
    ]
    return [(name, value) for name, value in rows if value]


def _papers(document: dict[str, Any]) -> Rows:
    licence, origin = document["licence"], document["origin"]
    kind = "open" if licence["open"] else "not open" + (", accepted by who built this" if licence["accepted"] else "")
    stated = f"; its source states {origin['licence']}" if origin.get("licence") else ""
    files = ", ".join(f"{name} {digest}" for name, digest in origin["sha256"].items())
    rows = [
        ("licence", f"{licence['spdx']} ({kind}) {licence['url']}".strip() + stated),
        ("what it allows", licence["note"]),
        ("source", f"{origin['kind']} {origin['location']} at {origin['revision']}"),
        ("sha256", files),
        ("built by", origin["builder"]),
        ("package digest", document["digest"]),
    ]
    return [(name, value) for name, value in rows if value]


def _ratio(quality: dict[str, Any]) -> float | None:
    reference = quality["reference_perplexity"]
    return round(quality["perplexity"] / reference, 5) if reference else None


def _times(quality: dict[str, Any]) -> str:
    return f"{quality['perplexity_ratio']:.4f} times" if quality["perplexity_ratio"] is not None else ""


def _plain(text: str) -> str:
    """Text of a model inside a Markdown table: one line, nothing that is markup or HTML."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
