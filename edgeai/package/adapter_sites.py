"""Where a package's graph takes adapters: what `model_lora.json` says."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from edgeai.errors import PackageError
from edgeai.recipe import Strict, describe_errors


class AdapterSite(Strict):
    """A product of the graph: matrices that are stacked because they read the same input.

    `modules` are named as in the checkpoint, such as model.layers.0.self_attn.q_proj; `sizes` are their outputs.
    """

    modules: tuple[str, ...]
    sizes: tuple[int, ...]
    inputs: int


class AdapterSites(Strict):
    """All sites, in the order of the graph's inputs."""

    sites: tuple[AdapterSite, ...]


def read_sites(path: Path) -> tuple[AdapterSite, ...]:
    """Raises `PackageError`."""
    try:
        return AdapterSites.model_validate_json(path.read_bytes()).sites
    except ValidationError as error:
        raise PackageError(f"{path} is not valid: {describe_errors(error)}", "build the package again") from None
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {error}", "build the package again") from None


def sites_bytes(sites: tuple[AdapterSite, ...]) -> bytes:
    """The file as it is written."""
    return (AdapterSites(sites=sites).model_dump_json() + "\n").encode()
