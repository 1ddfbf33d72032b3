"""FastAPI's description of the routes, with what it cannot know: answers, refusals, and what the fields mean."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic.json_schema import models_json_schema

from edgeai.server.auth import scope_of
from edgeai.server.errors import OLLAMA_PATHS
from edgeai.server.openapi.documents import Error, OllamaError
from edgeai.server.openapi.fields import FIELDS
from edgeai.server.openapi.operations import JSON, OPERATIONS, Operation

Json = dict[str, Any]
_REF = "#/components/schemas/{model}"
_HEAD = (403, 414, 431)  # any request may be refused for its head,
_KEY = (401, 429)  # and where a key is wanted for that
# The two ways to send an API key (`auth.key_of`).
_SCHEMES: Json = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key that `edgeai keys create` made, with the scope that an operation names, or admin",
    },
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same in another header"},
}


def described(document: Json, *, keys: bool) -> Json:
    """The document with all that. A route that `OPERATIONS` does not have stays as it is.

    `keys`: whether this server wants API keys; where it does not, they may be left out.
    """
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # nothing here answers like that
        schemas.pop(name, None)
    for schema in schemas.values():
        _describe_fields(schema)
    answers = {each.answer for each in OPERATIONS.values() if each.answer} | {Error, OllamaError}
    named = sorted(answers, key=lambda model: model.__name__)
    _, made = models_json_schema([(model, "validation") for model in named], ref_template=_REF)
    schemas |= made["$defs"]
    document["components"]["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["security"] = _security(scope_of(path), keys=keys)
            if (method, path) in OPERATIONS:
                _describe(operation, path, OPERATIONS[method, path])
    return document


def _describe_fields(schema: Json) -> None:
    for name, field in schema.get("properties", {}).items():
        field.pop("title", None)
        if (text := FIELDS.get(f"{schema['title']}.{name}") or FIELDS.get(name)) is not None:
            field["description"] = text


def _describe(operation: Json, path: str, known: Operation) -> None:
    operation["summary"] = known.summary
    answer = {} if known.answer is None else _ref(known.answer.__name__)
    content = {media: {"schema": answer if media == JSON else {}} for media in known.media}
    operation["responses"] = {"200": {"description": "The answer", "content": content}}
    error = _ref("OllamaError" if path.startswith(OLLAMA_PATHS) else "Error")
    refusals = {*known.refusals, *_HEAD, *(_KEY if scope_of(path) is not None else ())}
    if operation.get("parameters"):
        refusals.add(400)
    for status in sorted(refusals):
        operation["responses"][str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {JSON: {"schema": error}},
        }
    if known.unwell is not None:
        told = {"description": "The answer", "content": {JSON: {"schema": _ref(known.unwell.__name__)}}}
        operation["responses"]["503"] = told


def _security(scope: str | None, *, keys: bool) -> list[Json]:
    """Any of these is enough; OpenAPI 3.1 lets schemes name what a key has to allow."""
    if scope is None:
        return []
    return [*([] if keys else [{}]), *({scheme: [scope]} for scheme in _SCHEMES)]


def _ref(name: str) -> Json:
    return {"$ref": _REF.format(model=name)}
