"""Model packages: folders whose manifest vouches for every file. Opening one, and verifying it."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import ValidationError

from edgeai.errors import InvalidInput, NotFound, PackageError
from edgeai.package.manifest import (
    ADAPTER_GRAPH_NAME,
    ADAPTER_SITES_NAME,
    GRAPH_NAME,
    INT8_ADAPTER_GRAPH_NAME,
    INT8_GRAPH_NAME,
    INT8_PROMPT_GRAPH_NAME,
    LICENCE_NAME,
    MANIFEST_NAME,
    PROMPT_GRAPH_NAME,
    PROMPT_WEIGHTS_NAME,
    SCHEMA_VERSION,
    TEMPLATE_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    FileEntry,
    Manifest,
)
from edgeai.progress import Progress, silent
from edgeai.recipe import describe_errors

REQUIRED_FILES = frozenset({GRAPH_NAME, WEIGHTS_NAME, TOKENIZER_NAME, LICENCE_NAME})
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_CHUNK = 1 << 20  # bytes
_REBUILD = "build or install the package again"


class Graphs(NamedTuple):
    """The graphs over one type of KV cache: the plain one, and others for those packages that have them."""

    plain: Path
    adapters: Path | None = None  # with room for adapters
    prompts: Path | None = None  # fills the cache, with weights of its own


@dataclass(frozen=True)
class Package:
    """A package on disk. `open` has checked that every file the manifest names is there and of the right size.

    Files of precomputed prompts are left out of that: without them a package is slower, and nothing else.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path, *, verify: bool = False) -> Self:
        """Open the package in folder `path`; `verify` also reads every file and compares digests.

        Raises `NotFound` without the folder, `PackageError` for anything that does not match.
        """
        if not path.is_dir():
            raise NotFound(f"no package at {path}", "`edgeai models list` shows what is installed")
        package = cls(path, read_manifest(path / MANIFEST_NAME))
        problems = package.check() if verify else package.check_sizes(leave_out=package.warm_files)
        _raise_for(package, problems)
        return package

    @property
    def name(self) -> str:
        """The name that clients ask for."""
        return self.manifest.name

    @property
    def graph(self) -> Path:
        """The ONNX graph; its weights lie beside it."""
        return self.path / GRAPH_NAME

    @property
    def adapter_graph(self) -> Path | None:
        """The same graph with room for adapters; None for models that take none."""
        both = {ADAPTER_GRAPH_NAME, ADAPTER_SITES_NAME} <= self.manifest.files.keys()
        return self.path / ADAPTER_GRAPH_NAME if both else None

    @property
    def kv_types(self) -> tuple[str, ...]:
        """Types of KV cache that the package has graphs for."""
        return ("float32", "int8") if INT8_GRAPH_NAME in self.manifest.files else ("float32",)

    @property
    def prompt_weights(self) -> Path | None:
        """External data of the graph that reads prompts; None for packages that have no such graph."""
        return self._path_of(PROMPT_WEIGHTS_NAME)

    def graphs(self, kv_type: str) -> Graphs:
        """The graphs over a KV cache of `kv_type`.

        Raises `InvalidInput` for a type that the package has no graph for.
        """
        if kv_type not in self.kv_types:
            raise InvalidInput(
                f"{self.name} has no graph for a KV cache of {kv_type}, only of {', '.join(self.kv_types)}",
                "build it again, or leave the type of the KV cache out",
            )
        if kv_type == "float32":
            return Graphs(self.graph, self.adapter_graph, self._path_of(PROMPT_GRAPH_NAME))
        adapters = self._path_of(INT8_ADAPTER_GRAPH_NAME) if self.adapter_graph else None
        return Graphs(self.path / INT8_GRAPH_NAME, adapters, self._path_of(INT8_PROMPT_GRAPH_NAME))

    def _path_of(self, name: str) -> Path | None:
        return self.path / name if name in self.manifest.files else None

    @property
    def weights(self) -> Path:
        """The graph's external data, laid out to be memory-mapped."""
        return self.path / WEIGHTS_NAME

    @property
    def tokenizer(self) -> Path:
        """tokenizer.json of the `tokenizers` library."""
        return self.path / TOKENIZER_NAME

    @property
    def template(self) -> Path | None:
        """The Jinja chat template; None for models that have none."""
        return self._path_of(TEMPLATE_NAME)

    @property
    def licence(self) -> Path:
        """The licence's text."""
        return self.path / LICENCE_NAME

    @functools.cached_property
    def digest(self) -> str:
        """The package's identity: sha256 of its manifest, which holds the digests of all else."""
        return hashlib.sha256(manifest_bytes(self.manifest)).hexdigest()

    @functools.cached_property
    def model_digest(self) -> str:
        """What numbers come out for tokens: over graphs and weights, and not over names, texts or prompts."""
        told = {TOKENIZER_NAME, TEMPLATE_NAME, LICENCE_NAME} | self.warm_files
        digests = {name: entry.sha256 for name, entry in self.manifest.files.items() if name not in told}
        document = json.dumps([self.manifest.runtime, sorted(digests.items())])
        return hashlib.sha256(document.encode()).hexdigest()

    @property
    def warm_files(self) -> frozenset[str]:
        """Names of the files of precomputed prompts."""
        return frozenset(blocks.file for blocks in self.manifest.warm)

    @property
    def size_bytes(self) -> int:
        """Size of all files, without the manifest."""
        return sum(entry.size for entry in self.manifest.files.values())

    def check_sizes(self, *, leave_out: Container[str] = ()) -> list[str]:
        """Problems that show without reading contents: files missing, not plain files, or of a wrong size."""
        files = self.manifest.files
        missing = [
            f"{name} is not in the manifest" for name in sorted((REQUIRED_FILES | self.warm_files) - files.keys())
        ]
        found = (_size_problem(self.path / name, files[name]) for name in sorted(files) if name not in leave_out)
        return missing + [problem for problem in found if problem]

    def check(self, progress: Progress = silent) -> list[str]:
        """Every problem of the package: what `check_sizes` finds, wrong digests, files the manifest does not name."""
        problems = self.check_sizes()
        done = 0
        for name, entry in sorted(self.manifest.files.items()):
            path = self.path / name
            if _size_problem(path, entry) is None and file_digest(path) != entry.sha256:
                problems.append(f"{name} has been changed: its sha256 is not the manifest's")
            done += entry.size
            progress("verify", done, self.size_bytes)
        expected = {*self.manifest.files, MANIFEST_NAME}
        extra = sorted(path.name for path in self.path.iterdir() if path.name not in expected)
        return problems + [f"{name} does not belong to the package" for name in extra]

    def verify(self, progress: Progress = silent) -> None:
        """Read every file. Raises `PackageError` that lists all problems."""
        _raise_for(self, self.check(progress))


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest as it is written: the same content always gives the same bytes."""
    document = manifest.model_dump(mode="json")
    text = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def read_manifest(path: Path) -> Manifest:
    """Read and check manifest.json. Raises `PackageError`."""
    document = _read_document(path)
    version = document.get("schema_version")
    if not isinstance(version, int):
        raise PackageError(f"{path} does not say its schema_version", _REBUILD)
    if version > SCHEMA_VERSION:
        raise PackageError(f"{path} has schema version {version}, newer than {SCHEMA_VERSION}", "update edgeai")
    try:
        manifest = Manifest.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise PackageError(f"{path} is not a valid manifest: {describe_errors(error)}", _REBUILD) from None
    for name in manifest.files:
        check_file_name(name)
    return manifest


def check_file_name(name: str) -> None:
    """Refuse names that could reach outside the package. Raises `PackageError`."""
    if not _FILE_NAME.fullmatch(name) or name == MANIFEST_NAME:
        raise PackageError(f"{name!r} is not a name for a package's file", "letters, digits, dot, dash, underscore")


def file_digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackageError(f"{path.parent} is not a model package: it has no {path.name}") from None
    except (ValueError, OSError) as error:
        raise PackageError(f"{path} cannot be read: {error}", _REBUILD) from None
    if not isinstance(document, dict):
        raise PackageError(f"{path} is not a JSON object", _REBUILD)
    return document


def _size_problem(path: Path, entry: FileEntry) -> str | None:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return f"{path.name} is not a plain file"
    if not path.exists():
        return f"{path.name} is missing"
    size = path.stat().st_size
    return None if size == entry.size else f"{path.name} has {size} bytes instead of {entry.size}"


def _raise_for(package: Package, problems: list[str]) -> None:
    if problems:
        raise PackageError(f"package {package.path} is damaged: {'; '.join(problems)}", _REBUILD)
