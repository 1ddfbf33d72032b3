"""Reading the configuration again while the server runs (SIGHUP): what can change changes, the rest is named."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

from edgeai.config import ServerSettings
from edgeai.errors import EdgeaiError

log = logging.getLogger("edgeai.server")

Reader = Callable[[], ServerSettings]
Taker = Callable[[ServerSettings], None]


class Reloader:
    """Holds the settings in effect, and hands new ones to whoever follows them."""

    def __init__(self, settings: ServerSettings, read: Reader, takers: Sequence[Taker]) -> None:
        """`read` gives the settings as they are written now, `takers` take over those that are live."""
        self.settings = settings
        self._read = read
        self._takers = takers

    def reload(self) -> None:
        """Read again. A configuration that is wrong changes nothing; the log says what is wrong with it."""
        from edgeai.settings.resolve import changes

        try:
            wanted = self._read()
        except EdgeaiError as error:
            log.error("the configuration stays as it was: %s", error)
            return
        live, fixed = changes(self.settings, wanted)
        fields = {entry.name: getattr(wanted, entry.name) for entry in live}
        self.settings = dataclasses.replace(self.settings, **fields)
        for take in self._takers:
            take(self.settings)
        log.info("configuration read again; changed: %s", ", ".join(_names(live)) or "nothing")
        if fixed:
            log.warning("changed only by a restart: %s", ", ".join(_names(fixed)))


def _names(entries: Sequence[dataclasses.Field[object]]) -> list[str]:
    from edgeai.settings.schema import public_name

    return [public_name(entry) for entry in entries]
