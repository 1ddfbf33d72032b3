"""A GGUF file as a `WeightSource`: names, row order and configuration as Hugging Face has them, weights untouched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.gguf_blocks import DECODERS, FLOATS
from edgeai.sources.gguf_config import describe, dimensions
from edgeai.sources.gguf_format import DAMAGED, RawTensor
from edgeai.sources.gguf_metadata import INCOMPLETE
from edgeai.sources.gguf_rope import FACTOR_TENSORS
from edgeai.sources.gguf_rules import TensorRule
from edgeai.sources.gguf_split import GGUFModel
from edgeai.sources.gguf_tokenizer import read_tokenizer
from edgeai.sources.weights import BlockTensor, FloatTensor, Provenance, Tensor, TensorInfo, TokenizerFiles

DIGEST_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class _Placed:
    """A Hugging Face tensor and where the file has it; `expert` numbers one of a stack."""

    raw: RawTensor
    rule: TensorRule
    expert: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.raw.shape if self.expert is None else self.raw.shape[1:]


class GGUFSource:
    """An opened GGUF model of a supported architecture. The whole table of tensors is checked when it is opened."""

    def __init__(self, path: Path, *, provenance: Provenance | None = None) -> None:
        """Open `path`, or all parts of the split model that it is a part of.

        Without `provenance` it is that of local files, whose digests are then computed. Raises `SourceError` for what
        is damaged or missing, `UnsupportedModel` for what edgeai does not know.
        """
        self._file = GGUFModel(path)
        self._architecture, self._config = describe(self._file)
        self._placed = dict(self._match())
        self._require_all()
        licence = self._file.metadata.get("general.license")
        origin = provenance or local_provenance(*(file.path for file in self._file.files))
        self._provenance = replace(origin, licence=licence if isinstance(licence, str) else origin.licence)

    @property
    def path(self) -> Path:
        """The file itself, or the first part of a split model."""
        return self._file.path

    @property
    def config(self) -> Mapping[str, Any]:
        """The model's configuration with the keys of Hugging Face's config.json."""
        return self._config

    @property
    def provenance(self) -> Provenance:
        """Where the bytes came from."""
        return self._provenance

    @property
    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors, by Hugging Face name, in the order of the file."""
        return [TensorInfo(name, placed.shape, placed.raw.encoding) for name, placed in self._placed.items()]

    def load(self, name: str) -> Tensor:
        """Read one tensor by its Hugging Face name, on the grid it is stored on."""
        if name not in self._placed:
            raise SourceError(f"{self._file.path.name} has no tensor for {name!r}", INCOMPLETE)
        placed = self._placed[name]
        tensor = DECODERS[placed.raw.encoding](self._bytes(placed), placed.shape)
        _check_finite(tensor, placed.raw, self._file.path.name)
        if placed.rule.offset:
            return FloatTensor(tensor.dequantize() - np.float32(placed.rule.offset))
        heads = placed.rule.rotary_heads
        return _take_rows(tensor, hf_row_order(placed.shape[0], self._config[heads])) if heads else tensor

    def tokenizer(self) -> TokenizerFiles:
        """The tokenizer as a tokenizer.json, rebuilt from the metadata."""
        return read_tokenizer(self._file, vocab_size=self._config["vocab_size"])

    def _bytes(self, placed: _Placed) -> NDArray[np.uint8]:
        whole = self._file.raw(placed.raw)
        return whole if placed.expert is None else whole.reshape(placed.raw.shape[0], -1)[placed.expert]

    def _match(self) -> Iterator[tuple[str, _Placed]]:
        """Each tensor that is wanted, by its complete name."""
        sizes = dimensions(self._config)
        for raw in self._file.tensors.values():
            if raw.name in FACTOR_TENSORS:
                continue  # already part of the configuration
            rule = self._rule(raw.name)
            stacked = (sizes["experts"],) if rule.per_expert else ()
            self._check(raw, (*stacked, *(sizes[symbol] for symbol in rule.shape)), rule)
            if rule.per_expert:
                for expert in range(sizes["experts"]):
                    yield rule.name.format(expert=expert), _Placed(raw, rule, expert)
            else:
                yield rule.name, _Placed(raw, rule)

    def _rule(self, name: str) -> TensorRule:
        """The rule of one of the file's tensors, its name completed by the layer's number."""
        rule = self._architecture.tensors.get(name)
        if rule is not None:
            return rule
        prefix, _, rest = name.partition(".")
        number, _, part = rest.partition(".")
        rule = self._architecture.layer_tensors.get(part)
        if prefix != "blk" or rule is None or not _is_layer(number, self._config["num_hidden_layers"]):
            raise UnsupportedModel(
                f"{self._file.path.name}: tensor {name!r} has no place in {self._architecture.model_type}",
                "this is a variant of the architecture that edgeai does not know",
            )
        return replace(rule, name=f"model.layers.{number}.{rule.name}")

    def _check(self, raw: RawTensor, expected: tuple[int, ...], rule: TensorRule) -> None:
        where = f"{self._file.path.name}: tensor {raw.name!r}"
        if raw.encoding not in DECODERS:
            known = ", ".join(DECODERS)
            raise UnsupportedModel(f"{where} is of type {raw.encoding}, which is not supported", f"supported: {known}")
        if raw.shape != expected:
            raise SourceError(f"{where} has shape {raw.shape}; the configuration says {expected}", INCOMPLETE)
        if len(rule.shape) != 2 and raw.encoding not in FLOATS:
            raise UnsupportedModel(f"{where} is a quantized vector", "only matrices may be quantized")

    def _require_all(self) -> None:
        found = {placed.raw.name for placed in self._placed.values()}
        rules = dict(self._architecture.tensors)
        for layer in range(self._config["num_hidden_layers"]):
            rules |= {f"blk.{layer}.{name}": rule for name, rule in self._architecture.layer_tensors.items()}
        for name, rule in rules.items():
            if not rule.optional and name not in found:
                raise SourceError(f"{self._file.path.name}: tensor {name!r} is missing", INCOMPLETE)


def hf_row_order(rows: int, heads: int) -> NDArray[np.intp]:
    """For each row in Hugging Face's order, its number in llama.cpp's, which interleaves the halves of each head."""
    order: NDArray[np.intp] = np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(rows)
    return order


def file_digest(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(DIGEST_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error
    return digest.hexdigest()


def local_provenance(*paths: Path) -> Provenance:
    """Provenance of local files: their names (never their folder) and digests.

    The revision is the digest of the only file, or that of the list of digests.
    """
    digests = {path.name: file_digest(path) for path in paths}
    listed = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    revision = next(iter(digests.values())) if len(digests) == 1 else hashlib.sha256(listed.encode()).hexdigest()
    return Provenance(kind="path", location=paths[0].name, revision=revision, sha256=digests)


def _is_layer(number: str, count: int) -> bool:
    """Whether `number` is the plain decimal form of a layer that exists."""
    return number.isascii() and number.isdecimal() and str(int(number[:9])) == number and int(number) < count


def _take_rows(tensor: Tensor, order: NDArray[np.intp]) -> Tensor:
    """Rows in another order. Blocks lie along columns, so all that belongs to them moves with their rows."""
    return FloatTensor(tensor.values[order]) if isinstance(tensor, FloatTensor) else tensor.take(order)


def _check_finite(tensor: Tensor, raw: RawTensor, file_name: str) -> None:
    parts = [tensor.scales, tensor.minimums] if isinstance(tensor, BlockTensor) else [tensor.values]
    if not all(np.isfinite(part).all() for part in parts if part is not None):
        raise SourceError(f"{file_name}: tensor {raw.name!r} holds values that are not finite numbers", DAMAGED)
