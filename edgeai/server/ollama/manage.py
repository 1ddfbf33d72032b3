"""What Ollama's clients do to the models themselves: here only what no other client could be hurt by.

Packages are built and removed by whoever has the machine, at its command line: a board without a network could not get
a removed one back. A copy is another name.
"""

from __future__ import annotations

import json

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from edgeai.errors import Forbidden, InvalidInput, NotFound
from edgeai.package.aliases import AliasFile
from edgeai.server.model_pool import ModelPool
from edgeai.server.ollama.names import LATEST, known
from edgeai.server.ollama.protocol import CopyBody, ShowBody

SUCCESS = {"status": "success"}


def router(models: ModelPool, aliases: AliasFile) -> APIRouter:
    """The endpoints; copies are written to `aliases`."""
    routes = APIRouter()

    @routes.post("/api/pull", response_model=None)
    async def pull(body: ShowBody) -> Response:
        try:
            models.names.get(known(models, body.wanted))
        except NotFound as error:
            raise NotFound(
                f"{error.message}, and this server downloads nothing by itself", "`edgeai build` installs models"
            ) from None
        if body.stream is False:
            return JSONResponse(SUCCESS)
        return Response(json.dumps(SUCCESS) + "\n", media_type="application/x-ndjson")

    @routes.post("/api/push", response_model=None)
    async def push(_body: ShowBody) -> Response:
        raise Forbidden("nothing leaves this device", "copy the package's folder")

    @routes.post("/api/create", response_model=None)
    async def create(_body: ShowBody) -> Response:
        raise Forbidden("models are not made over the network", "`edgeai build` and `edgeai adapter add` make them")

    @routes.post("/api/copy", response_model=None)
    async def copy(body: CopyBody) -> Response:
        source = models.names.get(known(models, body.source))
        if body.destination.removesuffix(LATEST) in models.names.packages():
            raise InvalidInput(
                f"{body.destination!r} is an installed model", "choose another name", param="destination"
            )
        aliases.set(body.destination, source.name if source.parent else source.root)
        return Response(status_code=200)

    @routes.delete("/api/delete", response_model=None)
    async def delete(body: ShowBody) -> Response:
        if body.wanted in aliases.all():
            aliases.remove(body.wanted)
            return Response(status_code=200)
        listed = models.names.get(known(models, body.wanted))
        raise Forbidden(
            f"{listed.name!r} is not removed over the network", f"on the board: `edgeai models remove {listed.root}`"
        )

    return routes
