"""`edgeai keys`: who may ask the server; every change holds from the next request on, without a restart."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeai.cli.output import JsonFlag, emit, say

if TYPE_CHECKING:
    from edgeai.keys.key import ApiKey
    from edgeai.keys.store import KeyStore

KeyName = Annotated[str, typer.Argument(help="The key's name or id.")]
DAY = 86_400

app = typer.Typer(no_args_is_help=True, help="API keys of the server; changes hold at once.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What to call it, such as the client's name.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="For chat, embed, models, metrics, bundles or admin; chat, embed and models by default."),
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Its limit; else the server's.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(help="Its quota, read and written; else the server's.")] = None,
    days: Annotated[float | None, typer.Option(min=0, help="How long it lives; for ever by default.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a key and print it, once: only a hash of it is kept."""
    from edgeai.keys.key import DEFAULT_SCOPES

    key, secret = _store().add(
        name,
        scopes=scope or DEFAULT_SCOPES,
        requests_per_minute=requests_per_minute,
        tokens_per_day=tokens_per_day,
        expires=None if days is None else int(time.time() + days * DAY),
    )
    _tell(key, secret, as_json)


@app.command("list")
def list_keys(as_json: JsonFlag = False) -> None:
    """All keys, without what is secret of them."""
    keys = list(_store().all().values())
    if as_json:
        emit({"keys": [_shown(key) for key in keys]})
        return
    for key in keys:
        limits = [f"{key.requests_per_minute} requests/min"] if key.requests_per_minute else []
        limits += [f"{key.tokens_per_day} tokens/day"] if key.tokens_per_day else []
        if key.expires is not None:
            date = time.strftime("%Y-%m-%d", time.gmtime(key.expires))
            limits.append(f"expired {date}" if key.expired(time.time()) else f"until {date}")
        typer.echo("  ".join([key.id, key.name, ",".join(key.scopes), *limits]))


@app.command()
def revoke(name: KeyName, as_json: JsonFlag = False) -> None:
    """Refuse a key from now on."""
    key = _store().revoke(name)
    if as_json:
        emit({"revoked": _shown(key)})
    else:
        say(f"{key.name} is revoked")


@app.command()
def rotate(name: KeyName, as_json: JsonFlag = False) -> None:
    """Give a key a new secret, and print it once; the old one is refused from now on."""
    key, secret = _store().rotate(name)
    _tell(key, secret, as_json)


def _store() -> KeyStore:
    from edgeai.config import home_dir
    from edgeai.keys.store import KeyStore

    return KeyStore(home_dir())


def _tell(key: ApiKey, secret: str, as_json: bool) -> None:
    if as_json:
        emit({"key": secret, **_shown(key)})
        return
    say(f"The key {key.name}, which is not shown again:")
    typer.echo(secret)


def _shown(key: ApiKey) -> dict[str, Any]:
    return {name: value for name, value in key.as_dict().items() if name not in ("salt", "digest")}
