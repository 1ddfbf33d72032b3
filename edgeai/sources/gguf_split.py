"""A model in one GGUF file, or split over several as by llama-gguf-split: ``name-00001-of-00003.gguf`` and so on.

Any file of the set opens all of it. The first file has the model's metadata; each says which part it is, and of how
many parts and tensors the whole consists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import SourceError
from edgeai.sources.gguf_format import GGUFFile, RawTensor
from edgeai.sources.gguf_metadata import Metadata

NAME = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf")
MOST = 1000  # parts; a count beyond is damage
HINT = "fetch all parts of the model into one folder, under the names they were published with"


class GGUFModel:
    """All files of one model as if they were one: metadata, tensors, bytes."""

    def __init__(self, path: Path) -> None:
        """Open the model that `path` is, or is a part of. Raises `SourceError` when parts are missing or do not fit."""
        first = GGUFFile(path)
        count = Metadata(first).get("split.count", int, 1)
        self.files: Sequence[GGUFFile] = [first] if count <= 1 else _open_parts(path, first, count)
        self.path = self.files[0].path
        self.metadata: Mapping[str, Any] = self.files[0].metadata
        self._owners = {name: file for file in self.files for name in file.tensors}
        self.tensors: Mapping[str, RawTensor] = {
            name: tensor for file in self.files for name, tensor in file.tensors.items()
        }
        _check_tensors(self.files, self.tensors)

    def raw(self, tensor: RawTensor) -> NDArray[np.uint8]:
        """The bytes of a tensor, not copied."""
        return self._owners[tensor.name].raw(tensor)


def single_model(paths: Sequence[Path]) -> Path | None:
    """The file to open when `paths` are one model: the only one, or the first part of the only set; else None."""
    names = [NAME.fullmatch(path.name) for path in paths]
    sets = {(match["stem"], match["count"]) for match in names if match}
    one_set = len(sets) == 1 and all(names)
    return min(paths) if len(paths) == 1 or one_set else None


def _open_parts(path: Path, opened: GGUFFile, count: int) -> list[GGUFFile]:
    match = NAME.fullmatch(path.name)
    if match is None or int(match["count"]) != count or count > MOST:
        raise SourceError(f"{path.name} is one of {count} parts, which its name does not say", HINT)
    paths = [path.with_name(f"{match['stem']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    missing = [part.name for part in paths if not part.is_file()]
    if missing:
        raise SourceError(f"{path.name} is one of {count} parts; missing: {', '.join(missing[:5])}", HINT)
    parts = [opened if part == path else GGUFFile(part) for part in paths]
    for number, part in enumerate(parts):
        _check_part(part, number, count)
    return parts


def _check_part(part: GGUFFile, number: int, count: int) -> None:
    metadata = Metadata(part)
    says = (metadata.get("split.no", int), metadata.get("split.count", int))
    if says != (number, count):
        raise SourceError(
            f"{part.path.name} should be part {number} of {count}, counted from 0, and says {says[0]} of {says[1]}",
            HINT,
        )


def _check_tensors(files: Sequence[GGUFFile], tensors: Mapping[str, RawTensor]) -> None:
    """Every tensor is in one file only, and as many are there as each file says."""
    if sum(len(file.tensors) for file in files) != len(tensors):
        twice = next(name for name in tensors if sum(name in file.tensors for file in files) > 1)
        raise SourceError(f"{files[0].path.name}: tensor {twice!r} is in two of {len(files)} parts", HINT)
    for file in files:
        said = Metadata(file).get("split.tensors.count", int)
        if len(files) > 1 and said is not None and said != len(tensors):
            raise SourceError(f"{file.path.name}: the parts hold {len(tensors)} tensors of {said}", HINT)
