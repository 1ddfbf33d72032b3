"""What is done about a server's memory once it has started, when nobody waits for it any more."""

from __future__ import annotations

import logging
import threading
import time

from edgeai.device.file_pages import release_file_pages
from edgeai.device.huge_pages import collapse

DELAY = 5.0  # seconds; the first answer needs the processor, and what it reads of libraries is not read again

log = logging.getLogger(__name__)


def tidy(*, huge_pages: bool) -> None:
    """Let go of the pages of files that starting has read, and with `huge_pages` put the weights into such."""
    try:
        log.info("%d MiB of files are left to the page cache", release_file_pages() >> 20)
        if huge_pages:
            log.info("%d MiB of memory are in huge pages", collapse() >> 20)
    except OSError as error:  # such as a container without /proc
        log.info("memory stays as it is: %s", error)


def tidy_in_background(*, huge_pages: bool, delay: float = DELAY) -> threading.Thread:
    """Start `tidy` in a thread of its own, `delay` seconds from now.

    It takes some tenths of a second of a processor and of memory's attention.
    """

    def run() -> None:
        time.sleep(delay)
        tidy(huge_pages=huge_pages)

    thread = threading.Thread(target=run, name="edgeai-tidying", daemon=True)
    thread.start()
    return thread
