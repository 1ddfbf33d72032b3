"""Models split over several files: opened from any of them, and refused when parts are missing or do not fit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edgeai.errors import SourceError
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.gguf_split import single_model
from edgeai.sources.open import open_path
from tests.fixtures.gguf_files import GGUF, tiny_llama

COUNT = 3


def parts(count: int = COUNT) -> list[GGUF]:
    """A tiny llama as llama-gguf-split writes it: all metadata in the first part, tensors dealt out in order."""
    whole = tiny_llama()
    size = -(-len(whole.tensors) // count)
    made = []
    for number in range(count):
        split = {"split.no": number, "split.count": count, "split.tensors.count": len(whole.tensors)}
        metadata = whole.metadata if number == 0 else {}
        made.append(GGUF({**metadata, **split}, whole.tensors[number * size : (number + 1) * size]))
    return made


def write(folder: Path, files: list[GGUF], stem: str = "model") -> list[Path]:
    paths = []
    for number, file in enumerate(files, 1):
        paths.append(folder / f"{stem}-{number:05d}-of-{len(files):05d}.gguf")
        paths[-1].write_bytes(file.to_bytes())
    return paths


@pytest.fixture
def whole(tmp_path: Path) -> GGUFSource:
    path = tmp_path / "whole" / "model.gguf"
    path.parent.mkdir()
    path.write_bytes(tiny_llama().to_bytes())
    return GGUFSource(path)


@pytest.mark.parametrize("named", [0, 1, 2, None], ids=["first", "second", "last", "folder"])
def test_any_part_or_the_folder_opens_all(tmp_path: Path, whole: GGUFSource, named: int | None) -> None:
    folder = tmp_path / "split"
    folder.mkdir()
    paths = write(folder, parts())
    source = open_path(folder if named is None else paths[named])
    assert source.config == whole.config
    assert source.tensors == whole.tensors
    for info in whole.tensors:
        assert np.array_equal(source.load(info.name).dequantize(), whole.load(info.name).dequantize())
    assert source.tokenizer() == whole.tokenizer()


def test_provenance_has_the_digest_of_every_part(tmp_path: Path) -> None:
    paths = write(tmp_path, parts())
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    provenance = GGUFSource(paths[1]).provenance
    assert provenance.sha256 == digests
    assert provenance.location == paths[0].name
    listed = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    assert provenance.revision == hashlib.sha256(listed.encode()).hexdigest()


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_part_is_named(tmp_path: Path, missing: int) -> None:
    paths = write(tmp_path, parts())
    paths[missing].unlink()
    for path in paths:
        if path != paths[missing]:
            with pytest.raises(SourceError, match=rf"one of 3 parts; missing: {paths[missing].name}"):
                GGUFSource(path)
    with pytest.raises(SourceError, match="missing"):
        open_path(tmp_path)


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    def complaint(folder: str, files: list[GGUF]) -> str:
        (tmp_path / folder).mkdir()
        paths = write(tmp_path / folder, files)
        with pytest.raises(SourceError) as caught:
            GGUFSource(paths[0])
        return caught.value.message

    swapped = parts()
    swapped[1], swapped[2] = swapped[2], swapped[1]
    assert "model-00002-of-00003.gguf should be part 1 of 3, counted from 0, and says 2 of 3" in complaint("a", swapped)

    other_count = parts()
    other_count[2].metadata["split.count"] = 4
    assert "model-00003-of-00003.gguf should be part 2 of 3" in complaint("b", other_count)

    fewer = parts()
    fewer[1].tensors.pop()
    assert "the parts hold 19 tensors of 20" in complaint("c", fewer)

    twice = parts()
    twice[2].tensors.append(twice[0].tensors[0])
    assert "tensor 'token_embd.weight' is in two of 3 parts" in complaint("d", twice)

    unsaid = parts()
    del unsaid[1].metadata["split.no"]
    assert "and says None of 3" in complaint("e", unsaid)


@pytest.mark.parametrize("name", ["model.gguf", "model-00001-of-00004.gguf", "model-1-of-3.gguf"])
def test_a_part_under_another_name_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(parts()[0].to_bytes())
    with pytest.raises(SourceError, match="is one of 3 parts, which its name does not say"):
        GGUFSource(path)


@pytest.mark.parametrize("count", [-1, 5000, 2**31])
def test_impossible_counts(tmp_path: Path, count: int) -> None:
    model = tiny_llama()
    model.metadata["split.count"] = count % 2**32
    path = tmp_path / "model-00001-of-00002.gguf"
    path.write_bytes(model.to_bytes())
    with pytest.raises(SourceError, match="which its name does not say"):
        GGUFSource(path)


def test_which_files_are_one_model() -> None:
    def chosen(*names: str) -> str | None:
        path = single_model([Path(name) for name in names])
        return None if path is None else path.name

    assert chosen("a.gguf") == "a.gguf"
    assert chosen("a.gguf", "b.gguf") is None
    assert chosen("a-00002-of-00002.gguf", "a-00001-of-00002.gguf") == "a-00001-of-00002.gguf"
    assert chosen("a-00001-of-00002.gguf", "b-00002-of-00002.gguf") is None
    assert chosen("a-00001-of-00002.gguf", "a.gguf") is None
    assert chosen() is None
