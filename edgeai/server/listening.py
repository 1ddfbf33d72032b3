"""Where the server listens, and what it says to whoever started it: what to open, and a command to try."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from edgeai.errors import InvalidInput
from edgeai.server.admission import CountedListener
from edgeai.server.systemd import handed_over

if TYPE_CHECKING:
    from edgeai.config import ServerSettings
    from edgeai.package.manifest import Kind

# Address and body of a first request, by the kind of the model.
TRIALS: Mapping[Kind, tuple[str, str]] = {
    "decoder": ("/v1/chat/completions", '{"messages": [{"role": "user", "content": "Why is the sky blue?"}]}'),
    "embedding": ("/v1/embeddings", '{"input": ["Why is the sky blue?"]}'),
    "reranker": ("/v1/rerank", '{"query": "Why is the sky blue?", "documents": ["It scatters light.", "I see."]}'),
}


def listen(host: str, port: int) -> CountedListener:
    """A socket that listens there; port 0 takes a free one. Raises `InvalidInput`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return CountedListener(socket.create_server(address[:2], family=family, backlog=512))
    except OSError as error:
        reason = error.strerror or error
        hint = "choose another --port or --host"
        raise InvalidInput(f"cannot listen on {host} port {port}: {reason}", hint, param="port") from error


@contextmanager
def listening(settings: ServerSettings) -> Iterator[list[CountedListener]]:
    """The sockets of a server, the one that it tells people of first: those that systemd hands over, or its own.

    Raises `InvalidInput`.
    """
    ports = [settings.port, *([] if settings.ollama_port in (None, settings.port) else [settings.ollama_port])]
    with ExitStack() as stack:
        if given := handed_over():
            yield [stack.enter_context(CountedListener(each)) for each in given]
            return
        yield [stack.enter_context(listen(settings.host, port)) for port in ports if port is not None]


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a numeric address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def welcome(
    listener: socket.socket, model: str, kind: Kind = "decoder", *, auth: bool = False, fingerprint: str | None = None
) -> str:
    """What to open, and a command to try; `fingerprint` is of the certificate if there is one."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    url = f"{'https' if fingerprint else 'http'}://{shown}:{port}"
    path, body = TRIALS[kind]
    page = f"Open {url}/ in a browser, or try:" if kind == "decoder" else "Try:"
    header, key = (" -H 'Authorization: Bearer KEY'", "your key") if auth else ("", "any key")
    lines = [
        f"{model} is ready. {page}",
        f"  curl {'-k ' if fingerprint else ''}{url}{path} -H 'Content-Type: application/json'{header} \\",
        f"    -d '{body}'",
        f"OpenAI clients: base_url {url}/v1 and {key}. Ctrl-C stops.",
    ]
    if fingerprint:
        lines.insert(-1, f"The certificate's SHA-256 is {fingerprint}")
    return "\n".join(lines)
