"""The keys of one home: a file that only its owner can read, written power-safe, looked at again when it changes."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from edgeai.errors import InvalidInput, NotFound, StateDamaged
from edgeai.keys.key import ApiKey, split_key
from edgeai.package.durable import write_file

FILE_NAME = "keys.json"
_VERSION = 1
_PRIVATE = 0o600
Result = TypeVar("Result")
_Stamp = tuple[int, int, int] | None  # inode, time and size of the file; None: there is none


class KeyStore:
    """Keys by id. Other processes may change the file at any time; a look at its stamp costs a few microseconds."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE_NAME
        self._stamp: _Stamp = None
        self._keys: dict[str, ApiKey] = {}

    def all(self) -> Mapping[str, ApiKey]:
        """What the file has now. Raises `StateDamaged`: then nobody is let in."""
        stamp = self._look()
        if stamp != self._stamp:
            self._keys = {} if stamp is None else self._read()
            self._stamp = stamp
        return self._keys

    def verify(self, text: str) -> ApiKey | None:
        """The key that a client's text is, if it is one and its time is not over."""
        parts = split_key(text)
        key = self.all().get(parts[0]) if parts else None
        if parts is None or key is None or not key.matches(parts[1]) or key.expired(time.time()):
            return None
        return key

    def add(self, name: str, **options: Any) -> tuple[ApiKey, str]:
        """Keep a new key; options as `ApiKey.create`. Raises `InvalidInput`, also for a name that is taken."""
        key, secret = ApiKey.create(name, **options)
        self.keep(key)
        return key, secret

    def keep(self, key: ApiKey) -> None:
        """Let a key in from now on. Raises `InvalidInput` for a name that is taken."""

        def kept(keys: dict[str, ApiKey]) -> None:
            if any(key.name in (other.name, other.id) for other in keys.values()):
                raise InvalidInput(f"there is a key {key.name!r} already", "choose another name", param="name")
            keys[key.id] = key

        self._change(kept)

    def revoke(self, name: str) -> ApiKey:
        """Forget a key, by its name or id; it is refused from now on. Raises `NotFound`."""
        return self._change(lambda keys: keys.pop(_named(keys, name).id))

    def rotate(self, name: str) -> tuple[ApiKey, str]:
        """Give a key a new secret; the old one is refused from now on. Raises `NotFound`."""

        def rotated(keys: dict[str, ApiKey]) -> tuple[ApiKey, str]:
            key, secret = _named(keys, name).rotated()
            keys[key.id] = key
            return key, secret

        return self._change(rotated)

    def _change(self, change: Callable[[dict[str, ApiKey]], Result]) -> Result:
        with self._locked():
            keys = dict(self.all())
            result = change(keys)
            document = {"version": _VERSION, "keys": [key.as_dict() for key in keys.values()]}
            write_file(self.path, json.dumps(document, indent=1).encode(), mode=_PRIVATE)
            _give_to_owner(self.path)
        return result

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_suffix(".lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, _PRIVATE)
        try:
            _give_to_owner(lock)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _look(self) -> _Stamp:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _read(self) -> dict[str, ApiKey]:
        try:
            document = json.loads(self.path.read_bytes())
            keys = [ApiKey.from_dict(entry) for entry in document["keys"]]
        except OSError as error:
            raise StateDamaged(f"cannot read {self.path}: {error.strerror}", "let the server's user read it") from error
        except (ValueError, LookupError, TypeError) as error:
            hint = "remove the file, and make new keys with `edgeai keys create`"
            raise StateDamaged(f"{self.path} is damaged", hint) from error
        return {key.id: key for key in keys}


def _named(keys: Mapping[str, ApiKey], name: str) -> ApiKey:
    for key in keys.values():
        if name in (key.name, key.id):
            return key
    raise NotFound(f"there is no key {name!r}", "`edgeai keys list` shows all")


def _give_to_owner(path: Path) -> None:
    """What an administrator writes must stay readable for the user that the home belongs to."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
