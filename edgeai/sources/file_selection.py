"""Which files of a repository a build needs: configuration, safetensors, tokenizer, licence. Pickle files never."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from edgeai.errors import SourceError
from edgeai.sources.http_download import RemoteFile

INDEX = "model.safetensors.index.json"
NEEDED = (
    "config.json",
    "generation_config.json",
    INDEX,
    "quantize_config.json",  # of GPTQ
    "quant_config.json",  # of AWQ
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",  # of sentence-transformers, as the two that follow and POOLING
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "README.md",
    "LICEN[CS]E*",
    "NOTICE*",
)
POOLING = "1_Pooling/config.json"
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")  # what the index and transformers mean by weights
OTHER_WEIGHTS = "*.safetensors"  # where there are none of those; with copies in other formats left out
COPIES = ("consolidated*", "adapter*", "*.lora.*")
PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})
USE_SAFETENSORS = "loading a pickle file runs code; use a repository with safetensors or GGUF files"


def select(files: Sequence[RemoteFile], patterns: Sequence[str], where: str) -> tuple[RemoteFile, ...]:
    """The files that `patterns` name (exact, or with *, ? and []), or without patterns those that a build needs.

    Raises `SourceError` for a pattern without a file, unsafe names, weights that exist only as pickle files, and a
    choice that the user has to make. `where` names the repository in errors.
    """
    for file in files:
        check_name(file.name, where)
    return _named(files, patterns, where) if patterns else _needed(files, where)


def check_name(name: str, where: str) -> None:
    """Raises `SourceError` for a name that would lead out of the snapshot's folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name or "\0" in name or name.endswith("/"):
        raise SourceError(f"{where} lists a file called {name!r}", "such a name is not safe: use another repository")


def is_pickle(name: str) -> bool:
    """Whether a file is of a kind that may run code when it is loaded."""
    return PurePosixPath(name).suffix.lower() in PICKLES


def _named(files: Sequence[RemoteFile], patterns: Sequence[str], where: str) -> tuple[RemoteFile, ...]:
    chosen: dict[str, RemoteFile] = {}
    for pattern in patterns:
        found = [file for file in files if file.name == pattern or fnmatch.fnmatchcase(file.name, pattern)]
        safe = [file for file in found if not is_pickle(file.name)]
        if found and not safe:
            raise SourceError(f"{where}: {found[0].name} is a pickle file, which is refused", USE_SAFETENSORS)
        if not found:
            raise SourceError(f"{where} has no file {pattern!r}", f"it has: {_names(files)}")
        chosen |= {file.name: file for file in safe}
    return tuple(chosen[name] for name in sorted(chosen))


def _needed(files: Sequence[RemoteFile], where: str) -> tuple[RemoteFile, ...]:
    top = {file.name: file for file in files if "/" not in file.name}
    weights = _matching(top, WEIGHTS) or [
        name for name in _matching(top, [OTHER_WEIGHTS]) if not _matching([name], COPIES)
    ]
    if weights and "config.json" in top:
        needed = {name: top[name] for name in (*weights, *_matching(top, NEEDED))}
        needed |= {file.name: file for file in files if file.name == POOLING}
        return tuple(needed[name] for name in sorted(needed))
    return _only_gguf(files, where)


def _only_gguf(files: Sequence[RemoteFile], where: str) -> tuple[RemoteFile, ...]:
    """The one GGUF model of a repository, whole or split, with its licence."""
    ggufs = [file for file in files if file.name.lower().endswith(".gguf")]
    models = sorted({_model_of(file.name) for file in ggufs})
    if len(models) == 1:
        papers = _matching([file.name for file in files], ["README.md", "LICEN[CS]E*"])
        return tuple(file for file in files if file in ggufs or file.name in papers)
    if ggufs:
        raise SourceError(
            f"{where} has {len(models)} GGUF models: {', '.join(models[:12])}",
            "name one, as files in a recipe or after a colon: hub:OWNER/NAME@REVISION:FILE",
        )
    if any(is_pickle(file.name) for file in files):
        raise SourceError(f"{where} has its weights only as pickle files, which are refused", USE_SAFETENSORS)
    raise SourceError(f"{where} has neither safetensors with a config.json nor GGUF files", f"it has: {_names(files)}")


def _model_of(name: str) -> str:
    """The name without the part number of a split file (name-00001-of-00003.gguf)."""
    stem, _, count = name.rpartition("-of-")
    return f"{stem.rpartition('-')[0]}-*-of-{count}" if stem else name


def _matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return sorted(name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def _names(files: Sequence[RemoteFile]) -> str:
    names = sorted(file.name for file in files)
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "") or "nothing"
