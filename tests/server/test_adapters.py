"""Adapters through the real `openai` client: chosen by name, several at once, added and removed while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from edgeai.build.adapters import install
from edgeai.engine.config import EngineSettings
from edgeai.model import AsyncModel
from edgeai.package.adapters import AdapterStore
from edgeai.package.package import Package
from edgeai.server.app import create_app
from tests.fixtures.peft import EVERY, gguf_shapes, tensors_of, write_adapter
from tests.server.clients import strict_client
from tests.server.float_model import float_package
from tests.server.pools import pool_of
from tests.server.serving import serving

MODELS = ("tiny", "tiny:one", "tiny:two")
QUESTION = "Is the water clean? " * 4


@dataclass(frozen=True)
class Clinic:
    """A running server, its store and a client."""

    package: Package
    home: Path
    url: str
    client: openai.OpenAI

    def add(self, name: str, *, seed: int, targets: tuple[str, ...] = EVERY) -> None:
        tensors = tensors_of(targets, seed=seed, shapes=gguf_shapes())
        install(self.package, write_adapter(self.home / f"{name}-{seed}", tensors), name, self.home)

    def ask(self, model: str, question: str = QUESTION, **options: Any) -> Any:
        messages: Any = [{"role": "user", "content": question}]
        given = {"temperature": 0, "max_tokens": 30} | options
        return self.client.chat.completions.create(model=model, messages=messages, **given)


@pytest.fixture
def clinic(tmp_path: Path, tiny_base: Package) -> Iterator[Clinic]:
    model = AsyncModel.load(tiny_base, EngineSettings(threads=1, max_rows=6, kv_budget_bytes=1 << 27))
    app = create_app(pool_of(model, adapters=AdapterStore(tmp_path)))
    with (
        serving(model, app=app) as served,
        strict_client(served.url) as client,
    ):
        yield Clinic(tiny_base, tmp_path, served.url, client)


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return float_package(tmp_path_factory.mktemp("tiny"))


def test_base_and_two_adapters_at_once_say_what_they_say_alone(clinic: Clinic) -> None:
    clinic.add("one", seed=1)
    clinic.add("two", seed=2, targets=("q_proj", "v_proj"))
    alone = {model: clinic.ask(model).choices[0].message.content for model in MODELS}
    assert len(set(alone.values())) == len(MODELS)

    async def stream(client: openai.AsyncOpenAI, model: str) -> str:
        messages: Any = [{"role": "user", "content": QUESTION}]
        events = await client.chat.completions.create(
            model=model, messages=messages, stream=True, temperature=0, max_tokens=30
        )
        return "".join([event.choices[0].delta.content or "" async for event in events])

    async def together() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{clinic.url}/v1", api_key="none") as client:
            return await asyncio.gather(*(stream(client, model) for model in MODELS * 3))

    for _ in range(2):  # the second time out of the prefix cache
        assert asyncio.run(together()) == [alone[model] for model in MODELS] * 3


def test_answers_name_the_adapter(clinic: Clinic) -> None:
    clinic.add("one", seed=1)
    base, adapted = (clinic.ask(model, max_tokens=1) for model in MODELS[:2])
    assert (base.model, adapted.model) == ("tiny", "tiny:one")
    assert base.system_fingerprint != adapted.system_fingerprint
    completion = clinic.client.completions.create(model="tiny:one", prompt="Water", max_tokens=4)
    assert completion.model == "tiny:one"


def test_the_list_of_models(clinic: Clinic) -> None:
    clinic.add("one", seed=1)
    listed = {model.id: model.model_dump() for model in clinic.client.models.list()}
    assert sorted(listed) == ["tiny", "tiny:one"]
    assert (listed["tiny"]["parent"], listed["tiny"]["root"]) == (None, "tiny")
    assert (listed["tiny:one"]["parent"], listed["tiny:one"]["root"]) == ("tiny", "tiny")
    assert clinic.client.models.retrieve("tiny:one").id == "tiny:one"


def test_unknown_adapters(clinic: Clinic) -> None:
    for name in ("tiny:none", "tiny:", "tiny:../x", "other:one"):
        with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
            clinic.ask(name)
    with pytest.raises(openai.NotFoundError):
        clinic.client.models.retrieve("tiny:none")


def test_an_adapter_comes_changes_and_goes_while_requests_run(clinic: Clinic) -> None:
    """A stream of the base that began before the first adapter was there is not disturbed by any of it."""
    expected = clinic.ask("tiny", max_tokens=300, logit_bias={"2": -100}).choices[0].message.content
    events = iter(clinic.ask("tiny", max_tokens=300, logit_bias={"2": -100}, stream=True))
    said = [next(events).choices[0].delta.content or "" for _ in range(3)]
    clinic.add("one", seed=1)
    first = clinic.ask("tiny:one").choices[0].message.content
    clinic.add("one", seed=5)
    second = clinic.ask("tiny:one").choices[0].message.content
    AdapterStore(clinic.home).remove("tiny", "one")
    with pytest.raises(openai.NotFoundError, match="no adapter 'one'"):
        clinic.ask("tiny:one")
    assert first != second
    said += [event.choices[0].delta.content or "" for event in events]
    assert "".join(said) == expected


def test_a_damaged_adapter_is_an_error_of_its_own(clinic: Clinic) -> None:
    clinic.add("one", seed=1)
    path = AdapterStore(clinic.home).folder("tiny") / "one" / "weights.bin"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(openai.InternalServerError, match="damaged"):
        clinic.ask("tiny:one")
    assert clinic.ask("tiny").choices[0].finish_reason
