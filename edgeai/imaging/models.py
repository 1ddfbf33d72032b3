"""Model packages of an image: built from recipes or taken as they are, each verified, laid out as the store is."""

from __future__ import annotations

from pathlib import Path

from edgeai.config import cache_dir
from edgeai.imaging import stages as stages_module
from edgeai.imaging.plan import Plan
from edgeai.imaging.stages import Stages, code_digest
from edgeai.package.cpu_targets import GENERIC, cpu_target
from edgeai.package.manifest import MANIFEST_NAME
from edgeai.package.package import Package, file_digest
from edgeai.package.store import Store
from edgeai.recipe import Recipe, find_recipe


def make_models(stages: Stages, plan: Plan, models: tuple[str, ...], *, accept_licence: bool) -> Path:
    """A store's folder with all models, each a recipe's name, a recipe's file or a package's folder.

    Raises `EdgeaiError` of many kinds: `PackageError` for a damaged package, `LicenceNotAccepted`.
    """
    packages = [_package(stages, plan, model, accept_licence=accept_licence) for model in models]
    inputs = {"packages": [file_digest(path / MANIFEST_NAME) for path in packages], "code": code_digest(stages_module)}

    def install(folder: Path) -> None:
        store = Store(folder)
        store.folder.mkdir()
        for path in packages:
            store.install(path)
        (folder / ".lock").unlink(missing_ok=True)

    return stages.make("models", inputs, install)


def installed(home: Path) -> tuple[Package, ...]:
    """The packages of a store's folder, digests verified. Raises `PackageError`."""
    store = Store(home)
    return tuple(store.get(name, verify=True) for name in store.names())


def _package(stages: Stages, plan: Plan, model: str, *, accept_licence: bool) -> Path:
    folder = Path(model)
    if (folder / MANIFEST_NAME).is_file():
        return Package.open(folder, verify=True).path
    from edgeai.build.pipeline import build_package

    recipe = Recipe.load(folder) if folder.suffix == ".toml" else find_recipe(model)
    encoder = "encoder" in recipe.model_fields_set  # those are built for all processors
    target = GENERIC if encoder else cpu_target(plan.board.model_target)
    inputs = {"recipe": recipe.model_dump(mode="json"), "target": target.name, "accepted": accept_licence}

    def build(stage: Path) -> None:
        build_package(
            model,
            out=stage / "package",
            cpus=target,
            accept_licence=accept_licence,
            home=stage,
            cache=cache_dir(),
            progress=stages.progress,
        )

    return stages.make(f"model-{recipe.name}", inputs, build) / "package"
