"""Downloads from both hubs, against a server that speaks their protocols: whole, cut, wrong, refused and offline."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeai import http_client
from edgeai.errors import OutOfDisk, SourceError
from edgeai.progress import silent
from edgeai.recipe import HubRef, ModelScopeRef
from edgeai.sources import open_path, open_source, snapshot
from edgeai.sources.hub import HuggingFace
from edgeai.sources.listing import Hub, Wanted
from edgeai.sources.modelscope import ModelScope
from edgeai.sources.snapshot import Snapshot, SnapshotCache
from tests.fixtures.checkpoints import tiny_checkpoint
from tests.fixtures.gguf_files import tiny_llama
from tests.fixtures.hub_server import HubServer, Repository, git_sha1, sha256
from tests.fixtures.patience import PATIENCE

REPO = "someone/tiny"
COMMIT = Repository({}).commit
WEIGHTS = bytes(range(256)) * 40
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "README.md": b"# Tiny",
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "original/consolidated.00.pth": b"pickle",
}
HUBS = {"hub": HuggingFace, "modelscope": ModelScope}


class Client:
    """A snapshot cache that notes what it was told and how long it waited, without waiting."""

    def __init__(self, hub: type[HuggingFace | ModelScope], cache: Path) -> None:
        self.steps: list[str] = []
        self.waits: list[float] = []
        self.hub: Hub = hub(sleep=self.waits.append)
        self.cache = SnapshotCache(self.hub, cache, self._tell, sleep=self.waits.append)
        self.folder = cache / self.hub.kind / REPO.replace("/", "--")

    def _tell(self, step: str, done: int = 0, total: int = 0) -> None:
        assert 0 <= done <= max(done, total)
        self.steps.append(step)

    def fetch(self, *files: str, revision: str = COMMIT, **pins: str) -> Snapshot:
        return self.cache.fetch(Wanted(REPO, revision, files, pins.pop("sha256", None)))  # type: ignore[arg-type]

    def published(self) -> list[str]:
        """Names of files that could be used."""
        folder = self.folder / COMMIT
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(params=HUBS)
def client(request: pytest.FixtureRequest, hub_server: HubServer, tmp_path: Path) -> Client:
    hub_server.repositories[REPO] = Repository(dict(FILES), branch="main" if request.param == "hub" else "master")
    return Client(HUBS[request.param], tmp_path / "cache")


def connections(hub_server: HubServer, act: Callable[[], object]) -> int:
    before = len(hub_server.seen)
    act()
    return len(hub_server.seen) - before


def test_what_a_build_needs_is_fetched_and_verified(client: Client, hub_server: HubServer) -> None:
    fetched = client.fetch()
    assert client.published() == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert (fetched.folder / "model.safetensors").read_bytes() == WEIGHTS
    provenance = fetched.provenance
    assert (provenance.kind, provenance.location, provenance.revision) == (client.hub.kind, REPO, COMMIT)
    assert provenance.sha256 == {name: sha256(FILES[name]) for name in client.published()}
    assert provenance.licence == "apache-2.0"
    assert any("4 files, 0.0 MB" in step for step in client.steps)
    assert sorted(path.name for path in client.folder.iterdir()) == [COMMIT, f"{COMMIT}.json", f"{COMMIT}.lock"]


def test_what_is_there_is_used_without_a_connection(client: Client, hub_server: HubServer) -> None:
    first = client.fetch()
    assert connections(hub_server, client.fetch) == 0
    assert client.fetch() == first


def test_only_what_is_missing_comes_later(client: Client, hub_server: HubServer) -> None:
    client.fetch("config.json")
    assert client.published() == ["config.json"]
    plan = client.cache.plan(Wanted(REPO, COMMIT))
    assert plan.missing == plan.size - len(FILES["config.json"])
    client.fetch()
    assert len(hub_server.gets("config.json")) == 1


def test_a_cut_connection_goes_on_where_it_stopped(client: Client, hub_server: HubServer) -> None:
    hub_server.cuts["model.safetensors"] = [4000, 100]
    client.fetch()
    ranges = [seen.range for seen in hub_server.gets("model.safetensors") if seen.host == "cdn"]
    assert ranges == [None, "bytes=4000-", "bytes=4100-"]
    assert len(client.waits) == 2


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(client: Client, hub_server: HubServer) -> None:
    hub_server.cuts["model.safetensors"] = [5000] + [0] * (http_client.TRIES - 1)
    with pytest.raises(SourceError, match=r"the connection was cut after 5000 of 10240 bytes of model.safetensors, 5"):
        client.fetch()
    assert client.published() == ["README.md", "config.json", "tokenizer.json"]
    hub_server.cuts.clear()
    hub_server.seen.clear()
    plan = client.cache.plan(Wanted(REPO, COMMIT))
    assert plan.missing == len(WEIGHTS) - 5000
    client.fetch()
    assert [seen.range for seen in hub_server.seen if seen.host == "cdn"] == ["bytes=5000-"]


def test_a_slow_trickle_is_not_given_up(client: Client, hub_server: HubServer) -> None:
    """Every try brings something, so none counts as the last."""
    hub_server.cuts["model.safetensors"] = [1000] * 9
    client.fetch()
    assert (client.folder / COMMIT / "model.safetensors").read_bytes() == WEIGHTS


def test_a_server_that_ignores_ranges_starts_over(client: Client, hub_server: HubServer) -> None:
    hub_server.cuts["model.safetensors"] = [4000]
    hub_server.ignore_range = True
    client.fetch()
    assert (client.folder / COMMIT / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_wrong_bytes_are_named_and_not_used(client: Client, hub_server: HubServer, name: str) -> None:
    wrong = b"?" + FILES[name][1:]
    hub_server.tampered[name] = wrong
    with pytest.raises(SourceError, match=f"{name} has the wrong digest: expected") as raised:
        client.fetch()
    expected = git_sha1 if client.hub.kind == "hub" and name == "config.json" else sha256
    assert expected(FILES[name]) in raised.value.message
    assert expected(wrong) in raised.value.message
    assert name not in client.published()
    hub_server.tampered.clear()
    client.fetch()
    assert (client.folder / COMMIT / name).read_bytes() == FILES[name]


def test_a_damaged_beginning_is_fetched_again_from_the_start(client: Client, hub_server: HubServer) -> None:
    hub_server.cuts["model.safetensors"] = [5000] + [0] * 4
    with pytest.raises(SourceError):
        client.fetch()
    (part,) = [path for path in (client.folder / f"{COMMIT}.parts").iterdir() if path.stat().st_size]
    part.write_bytes(b"?" * 5000)
    client.fetch()
    assert (client.folder / COMMIT / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("size", [len(WEIGHTS) + 1, len(WEIGHTS) - 1])
def test_files_of_another_size_than_listed(client: Client, hub_server: HubServer, size: int) -> None:
    hub_server.tampered["model.safetensors"] = (WEIGHTS + b"x")[:size]
    with pytest.raises(SourceError, match=r"more than the 10240 bytes|the connection was cut|less of the file"):
        client.fetch()
    assert "model.safetensors" not in client.published()


def test_a_file_damaged_in_the_cache_is_fetched_again(client: Client, hub_server: HubServer) -> None:
    client.fetch()
    (client.folder / COMMIT / "model.safetensors").write_bytes(WEIGHTS[:-1] + b"?")
    client.fetch()
    assert any("model.safetensors is damaged in the cache" in step for step in client.steps)
    assert (client.folder / COMMIT / "model.safetensors").read_bytes() == WEIGHTS


def test_a_digest_that_the_recipe_pins(client: Client, hub_server: HubServer) -> None:
    pin = {"model.safetensors": sha256(WEIGHTS), "config.json": sha256(FILES["config.json"])}
    fetched = client.cache.fetch(Wanted(REPO, COMMIT, (), pin))
    assert fetched.provenance.sha256.items() >= pin.items()
    with pytest.raises(SourceError, match=f"listed with sha256 {sha256(WEIGHTS)}, the recipe pins 0000"):
        client.cache.fetch(Wanted(REPO, COMMIT, (), {"model.safetensors": "0" * 64}))
    with pytest.raises(SourceError, match=r"no file nothing.txt among those chosen"):
        client.cache.fetch(Wanted(REPO, COMMIT, (), {"nothing.txt": "0" * 64}))


def test_a_pin_holds_where_the_hub_gives_no_sha256(client: Client, hub_server: HubServer) -> None:
    with pytest.raises(SourceError, match=r"config\.json"):
        client.cache.fetch(Wanted(REPO, COMMIT, (), {"config.json": "0" * 64}))
    assert "config.json" not in client.published()


def test_a_file_that_is_listed_and_not_there(client: Client, hub_server: HubServer) -> None:
    hub_server.missing.add("config.json")
    with pytest.raises(SourceError, match=r"has no config\.json of someone/tiny"):
        client.fetch()


def test_a_revision_that_is_not_there(client: Client) -> None:
    with pytest.raises(SourceError, match="has no revision 'v9' of someone/tiny"):
        client.fetch(revision="v9")
    with pytest.raises(SourceError, match="has no revision 'dddd"):
        client.fetch(revision="d" * 40)
    assert not list(client.folder.parent.rglob("*.json"))


def test_a_repository_that_is_not_there(client: Client) -> None:
    with pytest.raises(SourceError, match=r"refuses someone/else .*does not exist"):
        client.cache.fetch(Wanted("someone/else", COMMIT))


@pytest.mark.parametrize("token", [None, "of-another-account"])
def test_a_gated_repository_says_what_to_do(
    client: Client, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    hub_server.repositories[REPO].token = "secret"
    variable = {"hub": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}[client.hub.kind]
    if token:
        monkeypatch.setenv(variable, token)
    with pytest.raises(SourceError, match="is gated, private, or does not exist") as raised:
        client.fetch()
    assert variable in raised.value.hint
    assert client.waits == []


def test_the_token_goes_to_the_hub_and_not_to_the_content_network(
    client: Client, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.repositories[REPO].token = "secret"
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "secret")
    client.fetch()
    assert {seen.authorization for seen in hub_server.seen if seen.host == "hub"} == {"Bearer secret"}
    assert {seen.authorization for seen in hub_server.seen if seen.host == "cdn"} == {None}


def test_a_busy_server_is_asked_again(client: Client, hub_server: HubServer) -> None:
    hub_server.busy = [(429, "7"), (503, None), (500, None), (502, "3600")]
    client.fetch()
    assert client.waits[0] == 7
    assert max(client.waits) == http_client.LONGEST_WAIT


def test_a_server_that_stays_busy_is_given_up(client: Client, hub_server: HubServer) -> None:
    hub_server.busy = [(503, None)] * 20
    with pytest.raises(SourceError, match=r"HTTP 503.*, 5 times in a row"):
        client.fetch()
    assert len(hub_server.seen) == http_client.TRIES


def test_nobody_there(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "127.0.0.1:9")  # without a scheme it is https
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:9: cannot be reached") as raised:
        client.fetch()
    assert "HF_ENDPOINT" in raised.value.hint


def test_a_branch_is_resolved_once(client: Client, hub_server: HubServer) -> None:
    branch = hub_server.repositories[REPO].branch
    assert client.cache.locked_commit(Wanted(REPO, branch)) is None
    assert client.fetch(revision=branch).provenance.revision == COMMIT
    assert client.cache.locked_commit(Wanted(REPO, branch)) == COMMIT
    hub_server.repositories[REPO].commit = "b" * 40
    assert connections(hub_server, lambda: client.fetch(revision=branch)) == 0
    assert client.fetch(revision=branch).provenance.revision == COMMIT
    client.cache.forget(Wanted(REPO, branch))
    assert client.fetch(revision=branch).provenance.revision == "b" * 40


def test_offline_with_a_warm_cache(client: Client, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    first = client.fetch(revision=hub_server.repositories[REPO].branch)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    branch = hub_server.repositories[REPO].branch
    assert connections(hub_server, lambda: client.fetch(revision=branch)) == 0
    assert client.fetch(revision=branch) == first


def test_offline_with_a_cold_cache(client: Client, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "true")
    with pytest.raises(SourceError, match="is not in the cache, and HF_HUB_OFFLINE=1 forbids") as raised:
        client.fetch()
    assert "edgeai fetch" in raised.value.hint
    monkeypatch.delenv("HF_HUB_OFFLINE")
    client.fetch("config.json")
    hub_server.seen.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SourceError, match=r"1 files of someone/tiny@c0ffee000000 are missing .*model\.safetensors"):
        client.fetch("model.safetensors")
    assert hub_server.seen == []


def test_no_room_is_told_before_anything_is_fetched(
    client: Client, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=snapshot.SPARE_BYTES + 5000))
    with pytest.raises(OutOfDisk, match="no room"):
        client.fetch()
    assert [seen for seen in hub_server.seen if "resolve" in seen.path or "FilePath" in seen.path] == []


def test_a_disk_that_fills_up_meanwhile(client: Client) -> None:
    """Every write to /dev/full fails as one to a full disk does."""
    parts = client.folder / f"{COMMIT}.parts"
    parts.mkdir(parents=True)
    plan = client.cache.plan(Wanted(REPO, COMMIT, ("model.safetensors",)))
    snapshot._part(parts, plan.files[0]).symlink_to("/dev/full")
    with pytest.raises(OutOfDisk):
        client.cache.fetch(Wanted(REPO, COMMIT, ("model.safetensors",)), plan)
    assert client.published() == []


FETCH = """
import sys
from pathlib import Path
from edgeai.recipe import HubRef
from edgeai.sources.repository import snapshots_for, wanted_of
entry = HubRef(kind="hub", repo=sys.argv[1], revision=sys.argv[2])
steps = []
snapshots_for(entry, Path(sys.argv[3]), lambda step, done=0, total=0: steps.append(step)).fetch(wanted_of(entry))
print(steps)
"""


def test_two_processes_at_once(hub_server: HubServer, tmp_path: Path) -> None:
    hub_server.repositories[REPO] = Repository(dict(FILES))
    hub_server.delay = 0.2
    command = [sys.executable, "-c", FETCH, REPO, COMMIT, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(2)]
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("waiting for another download" in output for output in outputs) == 1
    assert len([seen for seen in hub_server.gets("model.safetensors") if seen.host == "cdn"]) == 1


def test_the_library_sends_no_telemetry(hub_server: HubServer, tmp_path: Path) -> None:
    """Its agent would list what is installed beside it; and a snapshot asks for nothing but the listing and files."""
    hub_server.repositories[REPO] = Repository(dict(FILES))
    subprocess.run([sys.executable, "-c", FETCH, REPO, COMMIT, str(tmp_path)], check=True, stdout=subprocess.DEVNULL)
    assert {seen.path.split("?")[0].split("/")[1] for seen in hub_server.seen} == {"api", "someone", "cdn"}
    assert len([seen for seen in hub_server.seen if seen.path.startswith("/api")]) == 1
    assert not [seen for seen in hub_server.seen if "torch" in str(seen.agent) or "telemetry" in seen.path]


@pytest.mark.parametrize(("kind", "model"), [("hub", HubRef), ("modelscope", ModelScopeRef)])
def test_a_gguf_repository_opens_as_a_source(
    hub_server: HubServer, tmp_path: Path, kind: str, model: type[HubRef | ModelScopeRef]
) -> None:
    files = {"tiny-Q4_1.gguf": tiny_llama().to_bytes(), "tiny-Q8_0.gguf": b"other", "README.md": b"#"}
    hub_server.repositories[REPO] = Repository(files)
    entry = model.model_validate({"kind": kind, "repo": REPO, "revision": COMMIT, "files": ["*Q4_1.gguf"]})
    source = open_source(entry, tmp_path, progress=silent)
    assert source.provenance.kind == kind
    assert source.provenance.revision == COMMIT
    assert source.provenance.sha256 == {"tiny-Q4_1.gguf": sha256(files["tiny-Q4_1.gguf"])}
    assert source.load("model.norm.weight").dequantize().shape == (64,)


@pytest.mark.parametrize(("kind", "model"), [("hub", HubRef), ("modelscope", ModelScopeRef)])
def test_a_checkpoint_repository_opens_as_a_source(
    hub_server: HubServer, tmp_path: Path, kind: str, model: type[HubRef | ModelScopeRef]
) -> None:
    written = tiny_checkpoint("BF16", shards=2).write(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in written.iterdir()}
    hub_server.repositories[REPO] = Repository(files | {"pytorch_model.bin": b"pickle"})
    entry = model.model_validate({"kind": kind, "repo": REPO, "revision": COMMIT})
    source = open_source(entry, tmp_path / "cache", progress=silent)
    assert (source.provenance.kind, source.provenance.location) == (kind, REPO)
    assert source.provenance.sha256 == {name: sha256(data) for name, data in files.items()}
    assert source.load("model.norm.weight").dequantize().shape == (64,)
    assert source.tokenizer().bos_token_id == 1


def test_a_published_checkpoint_opens_as_the_same_folder_would(hub_server: HubServer, tmp_path: Path) -> None:
    """Sharded safetensors with index, tokenizer and card, from the hub, cut on the way."""
    folder = tiny_checkpoint(shards=2).write(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub_server.repositories[REPO] = Repository(files | {"pytorch_model.bin": b"pickle"}, licence="mit")
    shard = next(name for name in files if name.startswith("model-00002"))
    hub_server.cuts[shard] = [2000]
    entry = HubRef(kind="hub", repo=REPO, revision=COMMIT)
    source, local = open_source(entry, tmp_path / "cache", progress=silent), open_path(folder)
    assert [info.name for info in source.tensors] == [info.name for info in local.tensors]
    name = source.tensors[0].name
    assert (source.load(name).dequantize() == local.load(name).dequantize()).all()
    assert source.tokenizer() == local.tokenizer()
    assert (source.provenance.kind, source.provenance.revision) == ("hub", COMMIT)
    assert source.provenance.sha256[shard] == sha256(files[shard])
