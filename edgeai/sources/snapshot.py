"""Snapshots of a hub's repositories in the cache: one commit's files, whole, verified, usable without a network.

In the cache folder::

    <kind>/OWNER--NAME/refs/<revision>    the commit that a branch or tag meant when it was first used, and means since
    <kind>/OWNER--NAME/<commit>.json      all files of the commit as the hub lists them, and the licence it states
    <kind>/OWNER--NAME/<commit>.lock      held while a process checks or downloads
    <kind>/OWNER--NAME/<commit>.parts/    downloads that are not complete
    <kind>/OWNER--NAME/<commit>/          the files that were asked for so far

A commit never changes, so what is here is used without asking. Every file is read and compared with the listing's
digest before it is used. The hubs themselves are in `hub.py` and `modelscope.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeai.errors import SourceError
from edgeai.http_client import ServerRefusal, Sleep
from edgeai.package.durable import megabytes, no_room, raise_if_full, write_file
from edgeai.progress import Progress
from edgeai.sources.file_selection import select
from edgeai.sources.http_download import Digests, RemoteFile, digests_of, download
from edgeai.sources.listing import COMMIT, Hub, Listing, Wanted, read_listing, with_pins, write_listing
from edgeai.sources.weights import Provenance

SPARE_BYTES = 16 << 20  # room that is left for everything else


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fetch would do: `missing` bytes of `files` would be downloaded into `folder`."""

    listing: Listing
    files: tuple[RemoteFile, ...]
    folder: Path
    missing: int

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Files of one commit, all there and verified."""

    folder: Path
    provenance: Provenance


class SnapshotCache:
    """The snapshots of one hub under `cache`."""

    def __init__(self, hub: Hub, cache: Path, progress: Progress, *, sleep: Sleep = time.sleep) -> None:
        self._hub = hub
        self._cache = cache
        self._progress = progress
        self._sleep = sleep

    @property
    def kind(self) -> str:
        """The hub's name in recipes and provenance."""
        return self._hub.kind

    def plan(self, wanted: Wanted) -> Plan:
        """Find out what would be downloaded; asks the hub only for a commit that was never listed.

        Raises `SourceError` for what the hub does not have, or may not be asked for.
        """
        with self._files_writable(wanted.repo):
            listing = self._recorded(wanted) or self._ask(wanted)
            files = select(listing.files, wanted.files, self._name(wanted.repo, listing.commit))
            files = with_pins(files, wanted)
            folder = self._home(wanted.repo) / listing.commit
            return Plan(listing, files, folder, sum(_missing(folder, file) for file in files))

    def fetch(self, wanted: Wanted, plan: Plan | None = None) -> Snapshot:
        """Download what is missing and verify everything. Raises `SourceError` or `OutOfDisk`; keeps what came."""
        plan = plan or self.plan(wanted)
        with self._files_writable(wanted.repo), self._lock(plan.folder):
            damaged, digests = self._verify(plan)
            self._download(wanted, plan, [file for file in plan.files if file.name not in digests], damaged, digests)
        provenance = Provenance(
            kind=self._hub.kind,
            location=wanted.repo,
            revision=plan.listing.commit,
            sha256={file.name: digests[file.name].sha256 for file in plan.files},
            licence=plan.listing.licence,
        )
        return Snapshot(plan.folder, provenance)

    def locked_commit(self, wanted: Wanted) -> str | None:
        """The commit that a branch or tag was found to mean when it was first used; None before that."""
        if COMMIT.fullmatch(wanted.revision):
            return wanted.revision
        path = self._ref(wanted)
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None

    def forget(self, wanted: Wanted) -> None:
        """Ask again what a branch or tag means, the next time it is used."""
        self._ref(wanted).unlink(missing_ok=True)

    def _recorded(self, wanted: Wanted) -> Listing | None:
        commit = self.locked_commit(wanted)
        return read_listing(self._home(wanted.repo) / f"{commit}.json") if commit else None

    def _ask(self, wanted: Wanted) -> Listing:
        repo, revision = wanted.repo, self.locked_commit(wanted) or wanted.revision
        name = self._name(repo, revision)
        if self._hub.offline:
            raise SourceError(
                f"{name} is not in the cache, and {self._hub.offline} forbids to download it",
                f"run `edgeai fetch` where there is a network and bring the cache folder {self._cache}, or unset it",
            )
        self._progress(f"looking up {name}")
        listing = self._hub.listing(repo, revision)
        if COMMIT.fullmatch(revision) and listing.commit != revision:
            raise SourceError(f"asked for {name}, {self._hub.title} answered with {listing.commit}", "check the mirror")
        home = self._home(repo)
        home.mkdir(parents=True, exist_ok=True)
        write_listing(home, listing)
        if not COMMIT.fullmatch(wanted.revision):
            self._ref(wanted).parent.mkdir(exist_ok=True)
            write_file(self._ref(wanted), listing.commit.encode())
            self._progress(f"{repo}: {wanted.revision} is commit {listing.commit} from now on")
        return listing

    def _verify(self, plan: Plan) -> tuple[list[str], dict[str, Digests]]:
        """Names of files whose content is not what it should be, and digests of those that are whole."""
        damaged, whole = [], {}
        done, total = 0, sum(file.size for file in plan.files if (plan.folder / file.name).is_file())
        for file in plan.files:
            path = plan.folder / file.name
            if not path.is_file():
                continue
            self._progress("checking the cache", done, total)
            digests = digests_of(path)
            done += file.size
            if path.stat().st_size == file.size and _agree(file, digests):
                whole[file.name] = digests
            else:
                damaged.append(file.name)
        return damaged, whole

    def _download(
        self,
        wanted: Wanted,
        plan: Plan,
        missing: Sequence[RemoteFile],
        damaged: Sequence[str],
        digests: dict[str, Digests],
    ) -> None:
        """Fetch what is missing, smallest first: a wrong configuration shows before gigabytes have come."""
        if not missing:
            return
        name = self._name(wanted.repo, plan.listing.commit)
        self._refuse_offline(name, missing)
        for damage in damaged:
            self._progress(f"{damage} is damaged in the cache and is fetched again")
            (plan.folder / damage).unlink()
        parts = plan.folder.with_name(f"{plan.folder.name}.parts")
        self._require_room(plan.folder, parts, missing)
        total, done = sum(file.size for file in missing), 0
        step = f"fetching {name}, {len(missing)} files, {megabytes(total)}"
        for file in sorted(missing, key=lambda file: file.size):
            digests[file.name] = self._one(wanted.repo, plan, file, parts, _Offset(self._progress, step, done, total))
            done += file.size
        shutil.rmtree(parts, ignore_errors=True)

    def _one(self, repo: str, plan: Plan, file: RemoteFile, parts: Path, report: _Offset) -> Digests:
        request = self._hub.request(repo, plan.listing.commit, file.name)
        part = _part(parts, file)
        try:
            return download(request, file, plan.folder / file.name, part, report, sleep=self._sleep)
        except ServerRefusal as refusal:
            raise self._hub.explain(refusal, repo, file.name) from refusal

    def _refuse_offline(self, name: str, missing: Sequence[RemoteFile]) -> None:
        if self._hub.offline:
            names = ", ".join(file.name for file in missing[:5])
            raise SourceError(
                f"{len(missing)} files of {name} are missing or damaged in the cache ({names}), and"
                f" {self._hub.offline} forbids to download them",
                "run `edgeai fetch` where there is a network, or unset it",
            )

    def _require_room(self, folder: Path, parts: Path, missing: Sequence[RemoteFile]) -> None:
        there = sum(part.stat().st_size for file in missing if (part := _part(parts, file)).is_file())
        needed = sum(file.size for file in missing) - there + SPARE_BYTES
        if shutil.disk_usage(folder.parent).free < needed:
            raise no_room(folder, needed)

    def _home(self, repo: str) -> Path:
        return self._cache / self._hub.kind / repo.replace("/", "--")

    def _ref(self, wanted: Wanted) -> Path:
        return self._home(wanted.repo) / "refs" / urllib.parse.quote(wanted.revision, safe="")

    def _name(self, repo: str, revision: str) -> str:
        return f"{repo}@{revision[:12] if COMMIT.fullmatch(revision) else revision}"

    @contextlib.contextmanager
    def _lock(self, folder: Path) -> Iterator[None]:
        """One process at a time checks and downloads a snapshot; the others then find it whole."""
        with folder.with_name(f"{folder.name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._progress(f"waiting for another download of {folder.parent.name}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _files_writable(self, repo: str) -> Iterator[None]:
        """Turns the system's refusals to write into errors that say what to do."""
        try:
            yield
        except OSError as error:
            raise_if_full(error, self._cache / "download", 0)
            raise SourceError(
                f"cannot use the cache folder {self._home(repo)}: {error.strerror}", "EDGEAI_CACHE names another"
            ) from error


@dataclass(frozen=True, slots=True)
class _Offset:
    """Reports one file's bytes as part of all files'."""

    progress: Progress
    step: str
    before: int
    total: int

    def __call__(self, done: int) -> None:
        self.progress(self.step, self.before + done, self.total)


def _part(parts: Path, file: RemoteFile) -> Path:
    return parts / hashlib.sha256(f"{file.name}\0{file.sha256 or file.git_sha1}".encode()).hexdigest()[:32]


def _missing(folder: Path, file: RemoteFile) -> int:
    path = folder / file.name
    if path.is_file() and path.stat().st_size == file.size:
        return 0
    part = _part(folder.with_name(f"{folder.name}.parts"), file)
    return max(0, file.size - (part.stat().st_size if part.is_file() else 0))


def _agree(file: RemoteFile, digests: Digests) -> bool:
    return file.sha256 in (None, digests.sha256) and file.git_sha1 in (None, digests.git_sha1)
