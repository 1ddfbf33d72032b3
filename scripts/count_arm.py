"""Instructions of an answer on emulated Arm processors: `count_arm.py ARM PACKAGE... [--cpus ...]`.

ARM is the folder of check_arm, with a QEMU that has plugins in `counting`. Counts are of whole steps, Python
included, of one thread: instructions are not time, and how long memory takes is not in them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from check_arm import CPUS, ROOT, emulated, last_word

Counts = tuple[int, ...]  # all instructions, vector arithmetic, loads, multiplications of vectors


def counted(arm: Path, cpu: str, package: Path, tokens: int) -> tuple[int, list[Counts]]:
    """Tokens of the prompt, and the counts of every step: first that of the prompt. Raises RuntimeError."""
    _, *command = emulated(arm, cpu)
    with tempfile.NamedTemporaryFile("r", suffix=".log") as log:
        plugin = ["-plugin", str(arm / "counting" / "count.so"), "-d", "plugin", "-D", log.name]
        worker = [str(ROOT / "scripts" / "arm_worker.py"), str(package), str(tokens)]
        said = last_word([str(arm / "counting" / "qemu-aarch64"), *plugin, *command, *worker])
        return int(said["prompt"]), list(parsed(log))


def parsed(lines: Iterator[str]) -> Iterator[Counts]:
    """Counts in the order of their marks."""
    for line in lines:
        word, *numbers = line.split()
        if word == "COUNT":
            yield tuple(int(number) for number in numbers[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", type=Path)
    parser.add_argument("packages", type=Path, nargs="+")
    parser.add_argument("--cpus", nargs="+", default=list(CPUS))
    parser.add_argument("--tokens", type=int, default=4)
    args = parser.parse_args()
    print("| processor | package | step | instructions | vector | loads | multiplications |")
    print("|---|---|---|---|---|---|---|")
    for package in args.packages:
        for cpu in args.cpus:
            prompt, steps = counted(args.arm, cpu, package.absolute(), args.tokens)
            decode = tuple(int(median(kind)) for kind in zip(*steps[1:], strict=True))
            for name, counts in ((f"prompt of {prompt}", steps[0]), ("one token", decode)):
                cells = " | ".join(f"{count / 1e6:.1f} M" for count in counts)
                print(f"| {cpu} | {package.name} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
