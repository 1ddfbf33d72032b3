"""Several models on a real server: loaded when they are asked for, replaced, renamed and unloaded while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from edgeai.config import ServerSettings
from edgeai.device import huge_pages
from edgeai.device.heap import map_large_blocks, trim_heap
from edgeai.package.aliases import AliasFile
from edgeai.package.package import Package
from edgeai.package.store import Store
from edgeai.server.quiet_server import QuietServer
from tests.fixtures import patience
from tests.fixtures.encoders import WIDTH, encoder_package
from tests.fixtures.patience import PATIENCE, eventually
from tests.server.float_model import float_package
from tests.server.serving import serving_all

LIMITS: dict[str, Any] = {"threads": 1, "kv_budget_bytes": 1 << 27, "kv_disk_bytes": 0, "check": "never"}
QUESTION: Any = [{"role": "user", "content": "Is the water clean?"}]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Package]:
    folder = tmp_path_factory.mktemp("packages")
    (folder / "replacement").mkdir()
    made = [float_package(folder, "one"), float_package(folder, "two", seed=7), encoder_package(folder)]
    found = {package.name: package for package in made}
    return found | {"replacement": float_package(folder / "replacement", "one", seed=3)}


@pytest.fixture
def home(tmp_path: Path, packages: dict[str, Package], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEAI_HOME", str(tmp_path))
    for name in ("one", "two", "tiny-embedder"):
        Store(tmp_path).install(packages[name].path)
    return tmp_path


@pytest.fixture
def url(home: Path) -> Iterator[str]:
    with serving_all(ServerSettings(**LIMITS, alias=("gpt-4o-mini=two",))) as address:
        yield address


def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=PATIENCE)


def ask(url: str, model: str, **options: Any) -> Any:
    given = {"messages": QUESTION, "temperature": 0, "max_tokens": 20} | options
    return client(url).chat.completions.create(model=model, **given)


def text(url: str, model: str, **options: Any) -> str:
    return str(ask(url, model, **options).choices[0].message.content)


def states(url: str) -> dict[str, str]:
    return {model["id"]: model["state"] for model in patience.get(f"{url}/v1/models").json()["data"]}


def stays(url: str, model: str) -> float | None:
    found = {each["id"]: each["stays_seconds"] for each in patience.get(f"{url}/status").json()["models"]}
    return found[model]


def test_models_are_loaded_when_they_are_asked_for(url: str) -> None:
    assert states(url) == {
        "gpt-4o-mini": "available", "one": "available", "two": "available", "tiny-embedder": "loaded",
    }  # fmt: skip
    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(lambda _: text(url, "one"), range(8)))
    assert len(answers) == 1
    assert states(url)["two"] == "available"
    answer = ask(url, "gpt-4o-mini")
    assert answer.model == "two"
    assert answer.choices[0].message.content not in answers
    assert set(states(url).values()) == {"loaded"}
    vectors = client(url).embeddings.create(model="tiny-embedder", input="w1 w2")
    assert len(vectors.data[0].embedding) == WIDTH
    assert {text(url, "one")} == answers
    metrics = patience.get(f"{url}/metrics").text
    assert 'edgeai_model_loaded{model_name="one"} 1.0' in metrics
    assert "edgeai_model_loads_total 3.0" in metrics
    assert 'edgeai_generation_tokens_total{model_name="two"}' in metrics
    health = patience.get(f"{url}/health").json()
    assert health["loaded"]["one"]["state"] == "loaded"
    assert health["models"] == ["gpt-4o-mini", "one", "tiny-embedder", "two"]


def test_a_model_leaves_after_its_time_and_comes_back(url: str) -> None:
    first = text(url, "one", extra_body={"keep_alive": 0})
    assert eventually(lambda: states(url)["one"] == "available")
    assert text(url, "one", extra_body={"keep_alive": "5m"}) == first
    assert states(url)["one"] == "loaded"
    with pytest.raises(openai.BadRequestError, match="keep_alive: 'soon' is not a duration"):
        ask(url, "one", extra_body={"keep_alive": "soon"})


def test_a_package_is_replaced_without_disturbing_who_is_being_answered(
    url: str, home: Path, packages: dict[str, Package]
) -> None:
    long = {"max_tokens": 300, "logit_bias": {"2": -100}}
    expected, before = text(url, "one", **long), text(url, "one")
    events = iter(ask(url, "one", stream=True, **long))
    said = [next(events).choices[0].delta.content or "" for _ in range(3)]
    Store(home).install(packages["replacement"].path)
    after = text(url, "one")
    said += [event.choices[0].delta.content or "" for event in events]
    assert after != before
    assert "".join(said) == expected


def test_models_come_and_go_with_the_store(url: str, home: Path) -> None:
    text(url, "two")
    Store(home).remove("two")
    with pytest.raises(openai.NotFoundError, match="there is no model 'two'"):
        ask(url, "two")
    (home / "models" / "one").rename(home / "models" / "uno")
    assert text(url, "uno")
    assert list(states(url)) == ["tiny-embedder", "uno"]


def test_a_damaged_model_is_an_error_of_its_own_until_it_is_mended(
    url: str, home: Path, packages: dict[str, Package]
) -> None:
    graph = home / "models" / "one" / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(b"\0" * len(whole))
    for _ in range(2):
        with pytest.raises(openai.InternalServerError, match="cannot be loaded"):
            ask(url, "one")
    assert text(url, "two")
    graph.write_bytes(whole)
    assert text(url, "one")
    graph.unlink()
    Store(home).install(packages["two"].path)  # any change: the damage is seen when the packages are looked at again
    with pytest.raises(openai.InternalServerError, match=r"model\.onnx is missing"):
        ask(url, "one")


def test_aliases_of_the_store_are_there_at_once(url: str, home: Path) -> None:
    AliasFile(home).set("llama3.2:latest", "one")
    assert ask(url, "llama3.2:latest").model == "one"
    assert client(url).models.retrieve("llama3.2:latest").id == "llama3.2:latest"


def test_pinned_models_are_loaded_first_and_are_the_default(home: Path) -> None:
    with serving_all(ServerSettings(**LIMITS, pin=("two",))) as url:
        assert states(url)["two"] == "loaded"
        assert ask(url, "", extra_body={"keep_alive": 0}).model == "two"
        assert text(url, "one", extra_body={"keep_alive": 0})
        assert eventually(lambda: states(url)["one"] == "available")
        assert states(url)["two"] == "loaded"


def test_pins_and_keep_alive_change_at_sighup(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings, servers = ServerSettings(**LIMITS, pin=("two",)), list[QuietServer]()
    written = [settings]
    with serving_all(settings, read=lambda: written[-1], with_server=servers.append) as url:
        written.append(replace(settings, pin=("one", "nobody"), keep_alive_seconds=0.0))
        servers[0].hang_up()
        assert eventually(lambda: states(url) == {"one": "loaded", "two": "available", "tiny-embedder": "available"})
        told = {each["id"]: each for each in patience.get(f"{url}/status").json()["models"]}
        assert told["one"] == {"id": "one", "state": "loaded", "pinned": True, "stays_seconds": None}
        assert told["two"] == {"id": "two", "state": "available", "pinned": False, "stays_seconds": None}
        assert ask(url, "").model == "one"  # the default follows the pins
        with pytest.raises(openai.NotFoundError):
            ask(url, "gpt-4o-mini")
        for aliases in (("gpt-4o-mini=two",), ("=", "gpt-4o-mini=one")):  # the second cannot be, and changes nothing
            written.append(replace(written[-1], alias=aliases))
            servers[0].hang_up()
            assert eventually(lambda: states(url).keys() >= {"gpt-4o-mini"})
        assert eventually(lambda: "aliases stay as they were" in caplog.text)
        assert ask(url, "gpt-4o-mini").model == "two"
        assert ask(url, "two", extra_body={"keep_alive": "5m"}).model == "two"
        assert eventually(lambda: 0 < (stays(url, "two") or 0) <= 300)  # from a moment after the answer on
    assert "there is no model 'nobody' to pin; there is one, " in caplog.text


def own_memory() -> int:
    """Bytes of this process that are no pages of files, which the system takes back as it likes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_unloading_gives_the_memory_back(
    smollm_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a model takes is there again, each time, but for a little that libraries keep of the first one."""
    monkeypatch.setenv("EDGEAI_HOME", str(tmp_path))
    monkeypatch.setattr(huge_pages, "PAGE_SIZE_FILE", tmp_path / "none")  # they would round up everything else here too
    map_large_blocks()
    weights = smollm_package.size_bytes
    with serving_all(ServerSettings(**LIMITS, model=str(smollm_package.path))) as url:
        name = smollm_package.name
        rests = []
        for _ in range(3):
            ask(url, name, max_tokens=2)
            gone = own_memory() - weights * 3 // 4
            ask(url, name, max_tokens=2, extra_body={"keep_alive": 0})
            assert eventually(lambda: states(url)[name] == "available")
            assert eventually(lambda gone=gone: trim_heap() and own_memory() < gone)
            rests.append(own_memory())
        assert rests[2] < rests[0] + weights / 4  # what allocators keep varies; a model that stays is twice `weights`
    assert not any(thread.name == "edgeai-engine" for thread in threading.enumerate())
