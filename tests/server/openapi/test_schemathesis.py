"""Requests made up from the API's own description, right and wrong ones: no answer is a 5xx, none is undocumented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import hypothesis
import openai
import pytest
import schemathesis
from schemathesis import GenerationMode, checks

from edgeai.encoder.async_encoder import AsyncEncoder
from edgeai.model import AsyncModel, default_settings
from edgeai.package.package import Package
from edgeai.server.app import create_app
from edgeai.server.batch.runner import WorkFolder
from edgeai.server.openapi.operations import OPERATIONS
from tests.fixtures.encoders import encoder_package
from tests.fixtures.patience import PATIENCE
from tests.server.float_model import float_package
from tests.server.pools import FunctionLoader, pool_over
from tests.server.serving import serving

EXAMPLES = 10  # of each operation, right ones, and as many wrong ones where something can be wrong
MORE_EXAMPLES = 40  # right ones for what writes
MADE_UP = [
    (method, path, mode)
    for (method, path), known in OPERATIONS.items()
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or 400 in known.refusals
]
# What nobody makes up: names that are there, and prompts that say something, for every second right request.
MODELS = {
    "/v1/embeddings": "embedding",
    "/api/embed": "embedding",
    "/api/embeddings": "embedding",
    "/v1/rerank": "reranker",
}
PROMPTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
    "/v1/completions": {"prompt": "a"},
    "/v1/embeddings": {"input": "w1 w2", "dimensions": None, "input_type": None},
    "/tokenize": {"prompt": "a", "messages": None},
    "/api/copy": {"source": "tiny"},
    "/v1/batches": {"endpoint": "/v1/completions"},
}
CHECKS: Any = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


def load(package: Package) -> AsyncModel | AsyncEncoder:
    """Also again, after a request that had it unloaded."""
    if package.manifest.kind != "decoder":
        return AsyncEncoder.load(package, threads=1)
    settings = default_settings(package.manifest, max_rows=4, max_context=128, kv_budget_bytes=1 << 26)
    return AsyncModel.load(package, settings)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("packages")
    packages = {"tiny": float_package(folder)}
    for kind in ("embedding", "reranker"):
        encoder_package(folder, kind, name=kind)
        packages[kind] = Package.open(folder / kind)
    pool = pool_over(packages, loader=FunctionLoader(load))
    app = create_app(pool, work=WorkFolder(tmp_path_factory.mktemp("work"), 1 << 20))
    with serving(None, app=app) as served:
        yield served.url


@pytest.fixture(scope="module")
def schema(url: str) -> Any:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.fixture(scope="module")
def names(url: str) -> dict[str, str]:
    """Of things that are there, until they are removed."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        lost, kept = (client.files.create(file=("a.jsonl", b"{}"), purpose="batch").id for _ in range(2))
        batch = client.batches.create(input_file_id=kept, endpoint="/v1/completions", completion_window="24h").id
    return {"file_id": lost, "batch_id": batch, "name": "tiny", "input_file_id": kept}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path", "mode"), MADE_UP)
def test_no_answer_is_unexpected(schema: Any, names: dict[str, str], method: str, path: str, mode: Any) -> None:
    operation = schema[path][method]
    right = mode is GenerationMode.POSITIVE
    seen = Counter[int]()

    @hypothesis.settings(
        max_examples=MORE_EXAMPLES if right and 504 in OPERATIONS[method, path].refusals else EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        if right:
            make_sensible(case, path, names, prompt=sum(seen.values()) % 2 == 0)
        headers = {"content-type": "application/json"} if method == "post" and not case.media_type else {}
        answer = case.call(timeout=PATIENCE, headers=headers)
        seen[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    check()
    assert seen
    if right and 504 in OPERATIONS[method, path].refusals:
        assert seen[200]


def make_sensible(case: Any, path: str, names: dict[str, str], *, prompt: bool) -> None:
    """Name a model that is there, and with `prompt` everything else that is."""
    if isinstance(case.body, dict) and case.media_type == "application/json":
        case.body["model"] = MODELS.get(path, "tiny")
        case.body.pop("timeout", None)  # who allows 1e-300 seconds rightly gets a 504
        if prompt:
            case.body |= {**PROMPTS.get(path, {}), "input_file_id": names["input_file_id"]}
    if prompt and case.path_parameters:
        case.path_parameters = {name: names.get(name, value) for name, value in case.path_parameters.items()}
