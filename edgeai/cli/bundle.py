"""`edgeai export`, `edgeai import` and `edgeai trust`: models in one signed file, and whose signatures count."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeai.cli.board import CERTIFICATE_VARIABLE, Board, BoardOption, KeyOption
from edgeai.cli.output import AcceptLicence, JsonFlag, ModelArgument, emit, open_package, progress_display, say

if TYPE_CHECKING:
    from edgeai.bundle.importing import Imported
    from edgeai.bundle.keys import TrustedKey, TrustStore
    from edgeai.http_client import Request

SUFFIX = ".bundle"
SignWith = Annotated[
    list[Path] | None, typer.Option("--sign-with", help="A private key of `edgeai trust make-key`; also several times.")
]

app = typer.Typer(no_args_is_help=True, help="Keys whose signatures on models and systems count here.")


def export(
    model: ModelArgument,
    file: Annotated[Path, typer.Argument(help="Where to; a folder gets a file NAME.bundle.")],
    sign_with: SignWith = None,
    json: JsonFlag = False,
) -> None:
    """Write a model, with its adapters and other names, into one file that other boards can import."""
    from edgeai.bundle.keys import load_signing_key
    from edgeai.bundle.models import export_model
    from edgeai.config import home_dir

    keys = [load_signing_key(path) for path in sign_with or ()]
    package = open_package(model)
    target = file / f"{package.path.name}{SUFFIX}" if file.is_dir() else file
    with progress_display() as progress:
        head = export_model(package, home_dir(), target, keys, progress)
    if not keys:
        say("nobody has signed it: an import has to be told --unsigned")
    if json:
        emit({"file": str(target), "size_bytes": head.size_bytes, "digest": head.digest, "signed": bool(keys)})
    else:
        typer.echo(target)


def import_(
    location: Annotated[
        str, typer.Argument(metavar="FILE|URL|MODEL", help="A bundle; with --board the name of one of its models.")
    ],
    board: BoardOption = None,
    key: KeyOption = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Take it though nobody whom you trust has signed it.")
    ] = False,
    accept_licence: AcceptLicence = False,
    delta: Annotated[
        bool | None,
        typer.Option("--delta/--no-delta", help="Look for its parts in installed models; by default over a network."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Install a model from a bundle: a file, an address, or another board's. Run again it goes on where it stopped."""
    from edgeai.bundle.importing import check_signed, import_model
    from edgeai.bundle.keys import TrustStore
    from edgeai.bundle.models import require_licence
    from edgeai.bundle.reader import Bundle
    from edgeai.config import home_dir
    from edgeai.package.ownership import as_owner_of

    asked = _asked(location, board, key)
    home = home_dir()
    with reached(asked) as remote, Bundle.open(asked) as bundle, progress_display() as progress, as_owner_of(home):
        signed_by = check_signed(bundle, TrustStore.of(home), unsigned=unsigned)
        require_licence(bundle.head.manifest, accept_licence)
        done = import_model(bundle, home, signed_by, delta=remote if delta is None else delta, progress=progress)
    _tell(done, as_json=json)


@app.command("make-key")
def make_key(
    file: Annotated[Path, typer.Argument(help="Where the private key goes; the public one is beside it, in .pub.")],
    json: JsonFlag = False,
) -> None:
    """Make a pair of keys: the private one signs, the public one is given to boards."""
    from edgeai.bundle.keys import make_key_pair

    public, fingerprint = make_key_pair(file)
    if json:
        emit({"private": str(file), "public": str(public), "fingerprint": fingerprint})
        return
    say(f"{file} signs: keep it where nobody else gets it, and a copy of it elsewhere")
    say(f"{public} is for `edgeai trust add` on each board; its fingerprint: {fingerprint}")


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="A public key.")],
    name: Annotated[str | None, typer.Option(help="What to call it; by default as the file.")] = None,
    system: Annotated[
        bool, typer.Option("--system", help="Trust it with the board's system as well as with models.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Trust what is signed by a key."""
    key = _trust().add(file, name, system=system)
    if json:
        emit(_shown(key))
    else:
        say(f"{key.name} ({key.fingerprint}) is trusted for {' and '.join(f'{kind}s' for kind in key.kinds)}")


@app.command("list")
def list_keys(json: JsonFlag = False) -> None:
    """All keys that are trusted here, and for what."""
    keys = _trust().all()
    if json:
        emit({"keys": [_shown(key) for key in keys]})
        return
    for key in keys:
        typer.echo(f"{key.fingerprint}  {key.name}  {', '.join(key.kinds)}  {key.path}")


@app.command()
def remove(name: Annotated[str, typer.Argument(help="The key's name or fingerprint.")], json: JsonFlag = False) -> None:
    """Trust a key no more; what it has signed and is installed stays."""
    removed = _trust().remove(name)
    if json:
        emit({"removed": [_shown(key) for key in removed]})
    else:
        say(f"{removed[0].name} is trusted no more")


@contextlib.contextmanager
def reached(asked: str | Request) -> Iterator[bool]:
    """Whether a bundle is on the network; if so, this machine's firewall lets it be fetched while this lasts."""
    url = asked if isinstance(asked, str) else asked.url
    if "://" not in url:
        yield False
        return
    from edgeai.appliance.firewall import let_through

    with let_through(url):
        yield True


def _asked(location: str, board: str | None, key: str | None) -> str | Request:
    """A file or an address; or what to ask a board for, which alone is told its key."""
    if board is None or "/" in location or Path(location).is_file():
        return location
    from edgeai.http_client import Request

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    address = f"{Board.named(board, key).url}/bundles/{location}"
    return Request(address, headers, os.environ.get(CERTIFICATE_VARIABLE))


def _tell(done: Imported, *, as_json: bool) -> None:
    signer = done.signed_by.name if done.signed_by else None
    if as_json:
        emit(
            {
                "model": done.package.path.name,
                "package": str(done.package.path),
                "digest": done.package.digest,
                "size_bytes": done.package.size_bytes,
                "signed_by": signer,
                "adapters": list(done.adapters),
                "aliases": list(done.aliases),
                "there_bytes": done.there,
                "reused_bytes": done.reused,
                "fetched_bytes": done.fetched,
                "received_bytes": done.received,
            }
        )
        return
    say(f"signed by {signer}" if signer else "not signed by anybody who is trusted here")
    say(f"{done.fetched / 1e6:.1f} MB came, {(done.there + done.reused) / 1e6:.1f} MB were here")
    typer.echo(done.package.path)


def _shown(key: TrustedKey) -> dict[str, Any]:
    return {"name": key.name, "fingerprint": key.fingerprint, "kinds": list(key.kinds), "file": str(key.path)}


def _trust() -> TrustStore:
    from edgeai.bundle.keys import TrustStore
    from edgeai.config import home_dir

    return TrustStore.of(home_dir())
