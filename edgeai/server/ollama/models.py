"""What there is and what is in memory: `/api/tags`, `/api/show`, `/api/ps`, `/api/version`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter

from edgeai import __version__
from edgeai.package.manifest import MANIFEST_NAME
from edgeai.package.package import Package
from edgeai.server.model_pool import ModelPool
from edgeai.server.ollama.documents import timestamp
from edgeai.server.ollama.names import known
from edgeai.server.ollama.protocol import ShowBody
from edgeai.server.pool.names import Listed
from edgeai.text.reasoning import reasoning_format

OLLAMA_VERSION = "0.12.6"  # whose API this is: clients look whether it is new enough for what they want
NEVER = timedelta(days=365 * 100)  # how Ollama writes that a model stays


def router(models: ModelPool) -> APIRouter:
    """The endpoints over the models of `models`."""
    routes = APIRouter()

    @routes.get("/api/version")
    async def version() -> dict[str, str]:
        return {"version": OLLAMA_VERSION, "edgeai": __version__}

    @routes.get("/api/tags")
    async def tags() -> dict[str, Any]:
        return {"models": [_tag(listed) for listed in models.names.listed()]}

    @routes.get("/api/ps")
    async def running() -> dict[str, Any]:
        return {"models": _in_memory(models)}

    @routes.post("/api/show")
    async def show(body: ShowBody) -> dict[str, Any]:
        return _description(models, models.names.get(known(models, body.wanted)))

    return routes


def _tag(listed: Listed) -> dict[str, Any]:
    package = listed.package
    return {
        "name": listed.name,
        "model": listed.name,
        "modified_at": _modified(package),
        "size": package.size_bytes,
        "digest": package.digest,
        "details": _details(listed),
    }


def _details(listed: Listed) -> dict[str, Any]:
    manifest = listed.package.manifest
    family = manifest.architecture.model_type
    return {
        "parent_model": listed.parent or "",
        "format": "onnx",
        "family": family,
        "families": [family],
        "parameter_size": _short(manifest.architecture.parameters),
        "quantization_level": f"{manifest.quantization.bits_per_weight:.1f} bits",
    }


def _short(parameters: int) -> str:
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M"


def _modified(package: Package) -> str:
    return timestamp(datetime.fromtimestamp((package.path / MANIFEST_NAME).stat().st_mtime, UTC))


def _in_memory(models: ModelPool) -> list[dict[str, Any]]:
    clock = asyncio.get_running_loop().time()
    found = []
    for listed in models.names.listed():
        resident = models.residents.get(listed.root)
        if resident is None or not resident.loaded or listed.name != listed.root:
            continue
        left = resident.seconds_left(clock)
        stays = NEVER if left is None else timedelta(seconds=left)
        more = {"size_vram": 0, "context_length": models.context_length(listed)}
        found.append({**_tag(listed), **more, "expires_at": timestamp(datetime.now(UTC) + stays)})
    return found


def _description(models: ModelPool, listed: Listed) -> dict[str, Any]:
    package = listed.package
    manifest, architecture = package.manifest, package.manifest.architecture
    template = "" if package.template is None else package.template.read_text(encoding="utf-8")
    defaults = manifest.prompt.model_dump(exclude={"system"}, exclude_none=True)
    kind = architecture.model_type
    info = {
        "general.architecture": kind,
        "general.basename": package.name,
        "general.parameter_count": architecture.parameters,
        f"{kind}.context_length": models.context_length(listed),
        f"{kind}.embedding_length": architecture.hidden_size,
        f"{kind}.block_count": architecture.num_layers,
        f"{kind}.attention.head_count": architecture.num_heads,
        f"{kind}.attention.head_count_kv": architecture.num_kv_heads,
        f"{kind}.vocab_size": architecture.vocab_size,
    }
    return {
        "modelfile": f"# made by edgeai; `edgeai card {listed.root}` says more\nFROM {listed.root}\n",
        "parameters": "\n".join(f"{name} {value}" for name, value in defaults.items()),
        "template": template,
        "system": manifest.prompt.system or "",
        "license": package.licence.read_text(encoding="utf-8", errors="replace"),
        "details": _details(listed),
        "model_info": info,
        "capabilities": _capabilities(package, template),
        "modified_at": _modified(package),
    }


def _capabilities(package: Package, template: str) -> list[str]:
    """Models whose template knows no tools are told of them in the prompt."""
    if package.manifest.kind != "decoder":
        return ["embedding"] if package.manifest.kind == "embedding" else []
    chat = ["tools"] if template else []
    return ["completion", *chat, *(["thinking"] if reasoning_format(template) else [])]
