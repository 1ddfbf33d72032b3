"""The design's import rules: edges go downward only, no cycles, the device half stays small, exports are listed."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import edgeai

ROOT = Path(edgeai.__file__).parent
MODULES = sorted(path.relative_to(ROOT.parent) for path in ROOT.rglob("*.py"))
MODULE_NAMES = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in MODULES}

# Floors, top first. A room may import its own floor's other modules only if it is the same room, and all below.
FLOORS: list[set[str]] = [
    {"__main__"},
    {"cli"},
    {"server"},
    {"tuning"},
    {"measure", "warm"},
    {"model"},
    {"memory_plan"},
    {"imaging"},
    {"build", "engine"},
    {"architectures", "encoder"},
    {"device"},
    {"sources", "keys"},
    {"appliance"},
    {"bundle", "discovery"},
    {"package", "settings", "grammar"},
    {"onnx_session", "text", "config", "exporter", "http_client"},
    {"recipe", "progress"},
    {"errors", "licences", "__init__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
BUILD_HALF = {"build", "architectures", "sources"}
EXPORTER = "exporter"  # runs in a child process of a build, in an environment with torch


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module path such as ("edgeai", "engine", "engine.py")."""
    return parts[1].removesuffix(".py") if len(parts) > 1 else "__init__"


def imports_of(path: Path) -> set[str]:
    """Dotted names that a module imports, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT.parent / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where things come from"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names.update(full)
            if not full <= MODULE_NAMES:  # a package is imported for its contents, not to reach its modules
                names.add(node.module or "")
    return names


def room_imports(path: Path) -> set[str]:
    return {
        room for name in imports_of(path) if name.startswith("edgeai.") and (room := name.split(".")[1]) in FLOOR_OF
    }


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_edges_go_downward(path: Path) -> None:
    here = room_of(path.parts)
    for room in room_imports(path) - {here}:
        assert FLOOR_OF[here] < FLOOR_OF[room], f"{path} imports {room}, which is not below it"


def test_every_room_has_a_floor() -> None:
    assert {room_of(path.parts) for path in MODULES} <= FLOOR_OF.keys()


def test_no_module_cycles() -> None:
    known = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES}
    edges = {name: {other for other in imports_of(path) if other in known} - {name} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in sorted(edges[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


def test_onnxruntime_is_imported_in_one_place() -> None:
    here = [path for path in MODULES if room_of(path.parts) != EXPORTER]
    users = {str(path) for path in here if any(n.split(".")[0] == "onnxruntime" for n in imports_of(path))}
    assert users == {"edgeai/onnx_session.py"}


def test_engine_sees_token_ids_only() -> None:
    foreign = {"tokenizers", "jinja2", "fastapi", "pydantic", "json"}
    for path in MODULES:
        if room_of(path.parts) == "engine":
            assert not {name.split(".")[0] for name in imports_of(path)} & foreign, path
            assert not room_imports(path) & {"text", "server", "build", "package"}, path


def test_images_are_built_beside_the_device() -> None:
    """Nothing that runs on a device knows how images are built, and that needs neither server nor engine."""
    for path in MODULES:
        imports, here = room_imports(path), room_of(path.parts)
        assert here == "imaging" or "imaging" not in imports, path
        assert here != "imaging" or not imports & {"server", "engine", "model", "onnx_session"}, path


def test_device_half_needs_no_exporter() -> None:
    for path in MODULES:
        assert EXPORTER not in room_imports(path) - {room_of(path.parts)}, path
        if room_of(path.parts) == EXPORTER:
            continue
        packages = {name.split(".")[0] for name in imports_of(path)}
        assert not packages & {"torch", "transformers", "gguf", "optimum"}, path
        if "onnx" in packages:
            assert room_of(path.parts) == "architectures", path
        if room_of(path.parts) in {
            "engine",
            "encoder",
            "server",
            "model",
            "measure",
            "text",
            "package",
            "device",
            "tuning",
        }:
            assert not room_imports(path) & BUILD_HALF, path


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_room_is_crowded(path: Path) -> None:
    assert len((ROOT.parent / path).read_text(encoding="utf-8").splitlines()) <= 500


def with_all() -> list[str]:
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
    importable = [name for name in names if name != "edgeai.__main__" and not name.startswith(f"edgeai.{EXPORTER}.")]
    return [name for name in importable if hasattr(importlib.import_module(name), "__all__")]


@pytest.mark.parametrize("name", with_all())
def test_exported_names_are_all(name: str) -> None:
    """What `__all__` lists exists; a package exports just what it lists."""
    module = importlib.import_module(name)
    assert all(hasattr(module, exported) for exported in module.__all__)
    if Path(module.__file__ or "").name == "__init__.py":
        submodules = {path.stem for path in Path(module.__file__ or "").parent.iterdir()}
        public = {n for n, v in vars(module).items() if not n.startswith("_") and n not in submodules}
        imported_modules = {n for n in public if type(getattr(module, n)).__name__ == "module"}
        assert public - imported_modules <= set(module.__all__)
