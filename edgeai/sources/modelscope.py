"""ModelScope, by its own protocol: one call lists a commit's files with their sha256, one address for each file.

Its client libraries are not used: they are 23,000 lines and need a cryptography package, for two kinds of GET.

Environment: MODELSCOPE_ENDPOINT or MODELSCOPE_DOMAIN (a mirror), MODELSCOPE_API_TOKEN, MODELSCOPE_OFFLINE or
HF_HUB_OFFLINE, HTTPS_PROXY and NO_PROXY.
"""

from __future__ import annotations

import os
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from edgeai.errors import SourceError
from edgeai.http_client import Request, ServerRefusal, Sleep, get_json
from edgeai.sources.http_download import ADVICE, RemoteFile
from edgeai.sources.listing import COMMIT, Listing, offline_setting

ENDPOINT = "https://modelscope.cn"
DEFAULT_BRANCH = "master"
MOST_FILES = 3000  # longer listings come cut, without a word


class ModelScope:
    """The ModelScope that the environment names, or modelscope.cn."""

    kind = "modelscope"
    title = "ModelScope"

    def __init__(self, *, sleep: Sleep = time.sleep) -> None:
        self._sleep = sleep

    @property
    def offline(self) -> str | None:
        """Which variable forbids connections."""
        return offline_setting("MODELSCOPE_OFFLINE", "HF_HUB_OFFLINE")

    def listing(self, repo: str, revision: str) -> Listing:
        """All files of a branch, tag or commit. An unknown revision comes as an empty success."""
        data = self._data(repo, "/repo/files", {"Revision": revision, "Recursive": "True"}, f"revision {revision!r}")
        entries = [entry for entry in data.get("Files") or [] if entry.get("Type") != "tree"]
        if not entries:
            raise self.explain(ServerRefusal(404, "no files"), repo, f"revision {revision!r}")
        if len(entries) >= MOST_FILES:
            raise SourceError(f"{repo} has {MOST_FILES} files or more, which ModelScope does not list", "use the hub")
        files = tuple(_remote_file(repo, entry) for entry in entries)
        commit = revision if COMMIT.fullmatch(revision) else _commit(repo, data, entries)
        return Listing(commit, files, self._licence(repo))

    def request(self, repo: str, commit: str, name: str) -> Request:
        """The file's address, and the token where there is one."""
        query = urllib.parse.urlencode({"Revision": commit, "FilePath": name})
        return Request(f"{_base(repo)}/repo?{query}", _credentials())

    def explain(self, refusal: ServerRefusal, repo: str, what: str) -> SourceError:
        """A refusal in words."""
        if refusal.status in (401, 403):
            return SourceError(
                f"ModelScope refuses {repo} ({refusal}): it is gated, private, or does not exist",
                f"check the name; for a gated model ask for access on its page (/models/{repo}), then set"
                " MODELSCOPE_API_TOKEN",
            )
        if refusal.status == 404:
            return SourceError(
                f"ModelScope has no {what} of {repo}, or no such repository", "check name, revision and files"
            )
        return SourceError(f"ModelScope refuses {what} of {repo}: {refusal}", "check MODELSCOPE_ENDPOINT and proxies")

    def _licence(self, repo: str) -> str | None:
        stated = self._data(repo, "", {}, "description").get("License")
        return str(stated).strip().replace(" ", "-") if stated else None

    def _data(self, repo: str, path: str, query: Mapping[str, str], what: str) -> Mapping[str, Any]:
        address = _base(repo) + path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        try:
            document = get_json(Request(address, _credentials()), advice=ADVICE, sleep=self._sleep)
        except ServerRefusal as refusal:
            raise self.explain(refusal, repo, what) from refusal
        data = document.get("Data") if isinstance(document, dict) else None
        if not isinstance(data, dict):
            said = document.get("Message") if isinstance(document, dict) else document
            raise SourceError(f"ModelScope's answer about {repo} makes no sense: {said!r}", "check MODELSCOPE_ENDPOINT")
        return data


def _endpoint() -> str:
    chosen = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN") or ENDPOINT
    return (chosen if "://" in chosen else f"https://{chosen}").rstrip("/")


def _base(repo: str) -> str:
    return f"{_endpoint()}/api/v1/models/{repo}"


def _credentials() -> dict[str, str]:
    """Older addresses know the cookie, newer ones the header; the client library sends both."""
    token = os.environ.get("MODELSCOPE_API_TOKEN")
    return {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"} if token else {}


def _commit(repo: str, data: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> str:
    """The commit of a listing. It often gives only eight digits, which the last changed file completes."""
    latest = data.get("LatestCommitter") or {}
    if COMMIT.fullmatch(str(latest.get("Id", ""))):
        return str(latest["Id"])
    short = str(latest.get("ShortId") or "")
    known = {str(entry.get("Revision")) for entry in entries}
    found = [commit for commit in known if short and commit.startswith(short) and COMMIT.fullmatch(commit)]
    if len(found) != 1:
        raise SourceError(
            f"{repo}: ModelScope does not say which commit its files are of", "name a commit: ms:OWNER/NAME@COMMIT"
        )
    return found[0]


def _remote_file(repo: str, entry: Mapping[str, Any]) -> RemoteFile:
    name, size, sha256 = entry.get("Path"), entry.get("Size"), entry.get("Sha256")
    if not isinstance(name, str) or not isinstance(size, int) or not isinstance(sha256, str) or len(sha256) != 64:
        raise SourceError(f"{repo}: ModelScope gives no size or digest of {name}", "check MODELSCOPE_ENDPOINT")
    return RemoteFile(name, size, sha256)
