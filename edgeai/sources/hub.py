"""Hugging Face's hub and its mirrors, by way of `huggingface_hub`, which knows endpoint, token and protocol.

Only what a commit holds is asked through it (one call); the files come by `http_download`, which resumes and verifies
in the same way for every hub and every version of the library. Its telemetry is off, and it is imported only when
something has to be looked up.

Environment: HF_ENDPOINT (a mirror), HF_TOKEN, HF_HUB_OFFLINE, HTTPS_PROXY and NO_PROXY.
"""

from __future__ import annotations

import os
import re
import sys
import time
from importlib.util import find_spec
from typing import Any

from edgeai.errors import SourceError
from edgeai.http_client import BUSY, Interrupted, Request, ServerRefusal, Sleep, host_of, with_retries
from edgeai.sources.http_download import ADVICE, RemoteFile
from edgeai.sources.listing import Listing, offline_setting

LOOKUP_SECONDS = 30.0


class HuggingFace:
    """The hub that HF_ENDPOINT names, or huggingface.co."""

    kind = "hub"
    title = "Hugging Face"

    def __init__(self, *, sleep: Sleep = time.sleep) -> None:
        self._sleep = sleep

    @property
    def offline(self) -> str | None:
        """Which variable forbids connections."""
        return offline_setting("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")

    def listing(self, repo: str, revision: str) -> Listing:
        """One call: the commit, its files with sizes and digests, and the model card's licence."""
        library = _library()
        api = library.HfApi(endpoint=_endpoint(library), token=_token(library))

        def ask() -> Any:
            try:
                return api.model_info(repo, revision=revision, files_metadata=True, timeout=LOOKUP_SECONDS)
            except library.errors.HfHubHTTPError as error:
                raise self._refusal(error) from error
            except _connection_errors() as error:
                raise Interrupted(f"cannot be reached ({type(error).__name__}: {error})") from error

        try:
            info = with_retries(ask, host_of(_endpoint(library)), advice=ADVICE, sleep=self._sleep)
        except ServerRefusal as refusal:
            raise self.explain(refusal, repo, f"revision {revision!r}") from refusal
        if not info.sha or info.siblings is None:
            raise SourceError(f"{repo}: the hub's answer names no commit", "check HF_ENDPOINT")
        files = tuple(_remote_file(repo, sibling) for sibling in info.siblings)
        return Listing(info.sha, files, _licence(info))

    def request(self, repo: str, commit: str, name: str) -> Request:
        """The file's address, and the token where there is one."""
        library = _library()
        token = _token(library)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return Request(library.hf_hub_url(repo, name, revision=commit, endpoint=_endpoint(library)), headers)

    def explain(self, refusal: ServerRefusal, repo: str, what: str) -> SourceError:
        """What the hub meant: it hides repositories from those who may not read them."""
        if refusal.status in (401, 403):
            return SourceError(
                f"{self.title} refuses {repo} ({refusal}): it is gated, private, or does not exist",
                f"check the name; for a gated model accept its licence on its page (/{repo}), then set HF_TOKEN to a"
                " token of that account",
            )
        if refusal.status == 404:
            return SourceError(
                f"{self.title} has no {what} of {repo}, or no such repository", "check name, revision and files"
            )
        return SourceError(f"{self.title} refuses {what} of {repo}: {refusal}", "check HF_ENDPOINT and the proxies")

    def _refusal(self, error: Any) -> Exception:
        """A library error as one of ours. Without an answer there was no connection."""
        status = getattr(error.response, "status_code", None)
        if status is None or status in BUSY:
            wait = error.response.headers.get("Retry-After", "") if status else ""
            return Interrupted(f"HTTP {status}", float(wait) if str(wait).isdecimal() else None)
        return ServerRefusal(status, error.response.headers.get("X-Error-Code") or "")


def _library() -> Any:
    """The library, its telemetry off. Raises `SourceError` where it is not installed."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # files come by plain HTTP, which resumes
    if find_spec("huggingface_hub") is None:
        raise SourceError("downloads from the hub need huggingface_hub", "pip install 'edgeai[build]'")
    import huggingface_hub
    import huggingface_hub.errors

    return huggingface_hub


def _endpoint(library: Any) -> str:
    """The mirror, or the hub itself; read now, since the library reads the environment only when it is imported."""
    return (os.environ.get("HF_ENDPOINT") or str(library.constants.ENDPOINT)).rstrip("/")


def _token(library: Any) -> str | bool:
    """HF_TOKEN, or what `hf auth login` stored; False for none."""
    return library.get_token() or False


def _connection_errors() -> tuple[type[Exception], ...]:
    """What the library's HTTP clients raise: requests' are OSErrors, those of httpx (of either name) are not."""
    clients = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    return (OSError, *(client.HTTPError for client in clients))


def _remote_file(repo: str, sibling: Any) -> RemoteFile:
    sha256 = sibling.lfs["sha256"] if sibling.lfs else None
    git_sha1 = None if sha256 else sibling.blob_id
    if sibling.size is None or not (sha256 or git_sha1):
        raise SourceError(f"{repo}: the hub gives no size or digest of {sibling.rfilename}", "check HF_ENDPOINT")
    return RemoteFile(sibling.rfilename, sibling.size, sha256, git_sha1)


def _licence(info: Any) -> str | None:
    """The model card's licence; where it says "other", the name it gives."""
    card = info.card_data.to_dict() if info.card_data else {}
    stated = card.get("license")
    if stated == "other" and card.get("license_name"):
        stated = card["license_name"]
    if isinstance(stated, list):
        stated = stated[0] if len(stated) == 1 else " AND ".join(map(str, stated))
    return re.sub(r"\s+", "-", str(stated).strip()) if stated else None
