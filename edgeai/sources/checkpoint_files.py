"""The files of a Hugging Face checkpoint folder: which hold its tensors, and which are refused.

Weights are in `model.safetensors`, or in several files that `model.safetensors.index.json` lists. Pickled weights
(`pytorch_model.bin` and the like) are never opened: loading them can run any code that their author put in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.gguf_format import DAMAGED
from edgeai.sources.safetensors import StoredArray, read_header

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
OTHER_WEIGHTS = (".gguf", ".safetensors", *PICKLES)
INCOMPLETE = "the checkpoint is incomplete or damaged; get it again"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises `SourceError` that names the file for anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"cannot read {path.name}: {error.strerror}", INCOMPLETE) from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path.name} is not JSON: {error}", INCOMPLETE) from error
    if not isinstance(document, dict):
        raise SourceError(f"{path.name} is no JSON object", INCOMPLETE)
    return document


def optional_json(path: Path) -> dict[str, Any]:
    """As `read_json`, but an empty object where there is no such file."""
    return read_json(path) if path.exists() else {}


def title_of(folder: Path) -> str:
    """What a folder is called: its own name, or OWNER/NAME where it is a snapshot in huggingface_hub's cache.

    There it lies in models--OWNER--NAME/snapshots/COMMIT, and its own name says nothing.
    """
    folder = folder.resolve()
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/", 1)
    return folder.name


def is_pickle(path: Path) -> bool:
    """Whether a name is one of pickled weights; `training_args.bin` and other small company are not weights."""
    return path.suffix.lower() in PICKLES and path.stem not in {"training_args", "optimizer", "scheduler", "rng_state"}


def holds_checkpoint(folder: Path) -> bool:
    """Whether a folder is meant as a checkpoint, whole or not, of whatever kind of weights."""
    return any(path.name in (CONFIG, INDEX) or is_pickle(path) for path in folder.iterdir())


def refuse_pickle(names: str) -> UnsupportedModel:
    """The error for pickled weights."""
    return UnsupportedModel(
        f"{names}: pickled weights are not read, because loading them can run code that is hidden in them",
        "get the model as safetensors; or convert it on a machine you can spare (a container without network):"
        " load it with torch and save it with safetensors",
    )


def find_arrays(folder: Path) -> dict[str, StoredArray]:
    """Every tensor of the folder by its stored name.

    Raises `SourceError` for what is missing or damaged, `UnsupportedModel` for weights in another form.
    """
    single = _single(folder)
    if single is not None:
        return read_header(single)
    if (folder / INDEX).exists():
        return _sharded(folder)
    raise _no_weights(folder)


def _single(folder: Path) -> Path | None:
    """The one file with all weights, whatever its name."""
    if (folder / SINGLE).exists():
        return folder / SINGLE
    if (folder / INDEX).exists():
        return None
    others = sorted(path for path in folder.glob("*.safetensors") if path.name not in ADAPTERS)
    if len(others) > 1:
        names = ", ".join(path.name for path in others)
        raise SourceError(f"{folder.name} holds {names} but no {INDEX}, which says what is where", INCOMPLETE)
    return others[0] if others else None


def _sharded(folder: Path) -> dict[str, StoredArray]:
    index = read_json(folder / INDEX)
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise SourceError(f"{INDEX}: weight_map is no table of tensors and files", INCOMPLETE)
    arrays: dict[str, StoredArray] = {}
    for name in sorted(set(places.values())):
        for array in read_header(_shard(folder, name)).values():
            if array.name in arrays:
                first = arrays[array.name].path.name
                raise SourceError(f"tensor {array.name!r} is in {first} and again in {name}", INCOMPLETE)
            arrays[array.name] = array
    for tensor, name in places.items():
        if tensor not in arrays or arrays[tensor].path.name != name:
            raise SourceError(f"{name} has no tensor {tensor!r}, though {INDEX} says so", INCOMPLETE)
    _check_total(index, arrays)
    return arrays


def _shard(folder: Path, name: str) -> Path:
    """A file of the index, which may name nothing outside the folder."""
    if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name:
        raise SourceError(f"{INDEX} names the file {name!r}, which is not one of this folder", "do not use this model")
    if is_pickle(Path(name)):
        raise refuse_pickle(name)
    if not (folder / name).is_file():
        raise SourceError(f"{INDEX} names {name}, which is not there", INCOMPLETE)
    return folder / name


def _check_total(index: Mapping[str, Any], arrays: Mapping[str, StoredArray]) -> None:
    metadata = index.get("metadata")
    stated = metadata.get("total_size") if isinstance(metadata, dict) else None
    actual = sum(array.nbytes for array in arrays.values())
    if stated is not None and stated != actual:
        raise SourceError(
            f"{INDEX} states {stated} bytes of tensors, the files hold {actual}",
            "files are from different versions; get them again (or correct metadata.total_size if you made them)",
        )


def _no_weights(folder: Path) -> SourceError:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    if any(name in ADAPTERS for name in names):
        return SourceError(f"{folder.name} holds a LoRA adapter, not a model", "build its base model, with the adapter")
    pickles = [name for name in names if is_pickle(Path(name))]
    if pickles:
        return refuse_pickle(", ".join(pickles))
    return SourceError(
        f"{folder.name} holds no weights: there is neither {SINGLE} nor {INDEX}", INCOMPLETE + f" ({DAMAGED})"
    )
