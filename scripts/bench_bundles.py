"""Bundles measured: size, seconds and memory of export and import, and bytes that updates need.

bench_bundles.py PACKAGE [--newer PACKAGE] [--systems OLD NEW]

Commands run as processes of their own, with the system's page cache warm; a local web server stands for a mirror. Bytes
of an update are those of chunks that the old file does not have, and the manifest's, which always comes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

from edgeai.appliance.system_update import ROOT
from edgeai.bundle.chunking import cut, mean_for
from edgeai.bundle.writer import Contents, write_bundle
from edgeai.package.package import Package

CHUNK_TEXT = 48  # bytes of the manifest for each chunk
MEANS = (16 << 10, 64 << 10, 256 << 10)
SYSTEM_PROMPT = (
    "You answer people who come to a clinic. Be kind and short, and send whoever is in danger to a nurse. " * 4
)


# Arguments: old root, address of the new one's bundle, file to write. Prints bytes that came.
ASSEMBLE = """
import sys
from pathlib import Path
from edgeai.bundle.assembly import Assembly, Seed
from edgeai.bundle.reader import Bundle
with Bundle.open(sys.argv[2]) as bundle:
    [record] = bundle.head.manifest.files.values()
    with Assembly({Path(sys.argv[3]): record}) as assembly:
        assembly.reuse([Seed(Path(sys.argv[1]), record)])
        assembly.fetch(bundle)
        assembly.verify()
    print(bundle.origin.received)
"""


class Mirror(SimpleHTTPRequestHandler):
    """Python's file server, taught ranges."""

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        start, stop = (int(found[1]), int(found[2]) + 1) if found else (0, path.stat().st_size)
        stop = min(stop, path.stat().st_size)
        self.send_response(206 if found else 200)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{path.stat().st_size}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        with path.open("rb") as file:
            file.seek(start)
            while start < stop:
                start += self.wfile.write(file.read(min(1 << 20, stop - start)))


def run(home: Path, *arguments: str | Path) -> tuple[dict[str, Any], float, int]:
    """A command's JSON, its seconds, and the most memory that it had, in bytes."""
    said, seconds, memory = measured(["-P", "-m", "edgeai", *map(str, arguments), "--json"], home)
    return json.loads(said), seconds, memory


def measured(arguments: list[str], home: Path) -> tuple[bytes, float, int]:
    """What Python prints, its seconds, and the most memory that it had, in bytes."""
    started = time.perf_counter()
    environment = os.environ | {"EDGEAI_HOME": str(home), "no_proxy": "127.0.0.1"}
    quiet: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, *arguments], env=environment, **quiet)
    with process.stdout or sys.stdin.buffer as output:
        said = output.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{arguments}: {said.decode()}")
    return said, time.perf_counter() - started, usage.ru_maxrss << 10


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address at which the files of `folder` are."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Mirror, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def fixed(path: Path, size: int) -> Iterator[bytes]:
    """Chunks of one size."""
    with path.open("rb") as file:
        while data := file.read(size):
            yield data


def by_content(path: Path, mean: int) -> Iterator[bytes]:
    """Chunks as bundles have them."""
    with path.open("rb") as file:
        yield from cut(file, mean)


def update_bytes(old: Path, new: Path, way: Any, size: int) -> int:
    """What `new` costs where `old` is."""
    known = {hashlib.sha256(chunk).digest() for chunk in way(old, size)}
    missing, count = {}, 0
    for chunk in way(new, size):
        count += 1
        digest = hashlib.sha256(chunk).digest()
        if digest not in known:
            missing[digest] = len(chunk)
    return sum(missing.values()) + CHUNK_TEXT * count


def print_update(title: str, old: Path, new: Path) -> None:
    """One line for each way to cut."""
    size = new.stat().st_size
    print(f"\n{title}: {size / 1e6:.1f} MB")
    for name, way in (("fixed size", fixed), ("by content", by_content)):
        for mean in MEANS:
            needed = update_bytes(old, new, way, mean)
            chosen = "  <- bundles" if way is by_content and mean == mean_for(size) else ""
            print(f"  {name} {mean >> 10:>4} KiB  {needed / 1e6:>7.1f} MB  {needed / size:>6.1%}{chosen}")


def print_system(old: Path, new: Path, folder: Path) -> None:
    """The root of a system over HTTP, where the old one is running."""
    contents = Contents("system", "bench", {ROOT: new}, metadata={"board": "bench"})
    head = write_bundle(folder / "system.bundle", contents, [])
    print(f"\nbundle of a root of {new.stat().st_size / 1e6:.1f} MB: a manifest of {len(head.data) / 1e6:.2f} MB")
    with serving(folder) as address:
        arguments = ["-c", ASSEMBLE, str(old), f"{address}/system.bundle", str(folder / "root")]
        said, seconds, memory = measured(arguments, folder)
    print(f"written and read back: {seconds:.1f} s, {memory / 1e6:.0f} MB of memory, {int(said) / 1e6:.1f} MB came")


def print_compression(path: Path) -> None:
    """What zlib would win on every eighth chunk of a file."""
    started, before, after = time.perf_counter(), 0, 0
    for chunk in islice(by_content(path, 64 << 10), 0, None, 8):
        before += len(chunk)
        after += min(len(chunk), len(zlib.compress(chunk, 6)))
    speed = before / (time.perf_counter() - started) / 1e6
    print(f"\nzlib makes {path.name} smaller by {1 - after / before:.1%}, at {speed:.0f} MB/s")


def print_round(package: Path, folder: Path) -> None:
    """Export, import, import over HTTP, and an update whose prompts were computed ahead."""
    lab, mirror = folder / "lab", folder / "mirror"
    mirror.mkdir()
    _, seconds, least = run(lab, "trust", "list")
    print(f"a command that does nothing: {seconds:.2f} s, {least / 1e6:.0f} MB of memory")
    key = folder / "key.pem"
    run(lab, "trust", "make-key", key)
    made, seconds, memory = run(lab, "export", package, mirror / "model.bundle", "--sign-with", key)
    size = Package.open(package).size_bytes
    over = made["size_bytes"] - size
    print(f"export of {size / 1e6:.1f} MB: {seconds:.2f} s, {memory / 1e6:.0f} MB of memory, {over / size:.2%} more")
    for name in ("file", "mirror"):
        run(folder / name, "trust", "add", key.with_suffix(".pub"))
    done, seconds, memory = run(folder / "file", "import", mirror / "model.bundle")
    print(f"import from a file: {seconds:.2f} s, {memory / 1e6:.0f} MB of memory")
    with serving(mirror) as address:
        bundle = f"{address}/model.bundle"
        done, seconds, memory = run(folder / "mirror", "import", bundle)
        print(f"import over HTTP: {seconds:.2f} s, {memory / 1e6:.0f} MB of memory, {megabytes(done)} MB came")
        newer = folder / "newer"
        shutil.copytree(package, newer)
        prompt = folder / "prompt.txt"
        prompt.write_text(SYSTEM_PROMPT, encoding="utf-8")
        run(
            lab, "warm", newer, "--prompt", prompt
        )  # not in this process: a child's memory is counted from its parent's
        run(lab, "export", newer, mirror / "model.bundle", "--sign-with", key)
        done, seconds, memory = run(folder / "mirror", "import", bundle)
        print(f"a new precomputed prompt: {seconds:.2f} s, {memory / 1e6:.0f} MB of memory, {megabytes(done)} MB came")


def megabytes(done: dict[str, Any]) -> str:
    """What an import received."""
    return f"{done['received_bytes'] / 1e6:.1f}"


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("package", type=Path)
    parser.add_argument("--newer", type=Path)
    parser.add_argument("--systems", type=Path, nargs=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print_round(given.package, Path(folder))
    print_compression(given.package / "weights.bin")
    if given.newer:
        print_update("weights of another quantization", given.package / "weights.bin", given.newer / "weights.bin")
    if given.systems:
        print_compression(given.systems[1])
        print_update("a newer root file system", *given.systems)
        with tempfile.TemporaryDirectory() as folder:
            print_system(*given.systems, Path(folder))


if __name__ == "__main__":
    main()
