"""The golden prompt on emulated Arm processors: `check_arm.py ARM GENERIC CORTEX_A72 [--cpus ...]`.

ARM is a folder with an arm64 Python (`root`), its wheels (`site`) and QEMU (`qemu`), the others are packages of one
model's weights. A table in Markdown: the tokens that agree with this machine's. Exits with 1 where the first differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# The package that images have for the boards of a processor.
SHIPPED = {"cortex-a53": "cortex-a72", "cortex-a72": "cortex-a72", "cortex-a76": "generic"}
CPUS = tuple(SHIPPED)
TIMEOUT_SECONDS = 1800
MUST_AGREE = 4  # tokens; further ones may part ways where two are nearly as likely, for kernels round differently

GOLDEN = """
import json, sys
from pathlib import Path
from edgeai.model import Model, default_settings
from edgeai.package.package import Package
package = Package.open(Path(sys.argv[1]))
settings = default_settings(package.manifest, threads=1, max_rows=1, max_context=256, draft_tokens=0)
with Model.load(package, settings) as model:
    params = model.default_params(temperature=0, max_tokens=int(sys.argv[2]), ignore_eos=True)
    question = [{"role": "user", "content": "Why is the sky blue?"}]
    print(json.dumps([token for chunk in model.chat(question, params) for token in chunk.token_ids]))
"""


def answer(command: list[str], package: Path, tokens: int, environment: dict[str, str]) -> list[int]:
    """Tokens of the golden prompt, from a Python that `command` starts. Raises RuntimeError where it fails."""
    result: list[int] = last_word([*command, "-c", GOLDEN, str(package), str(tokens)], environment)
    return result


def last_word(command: list[str], environment: Mapping[str, str] | None = None) -> Any:
    """The JSON document in the last line that a program prints. Raises RuntimeError where it fails."""
    env = os.environ | dict(environment or {})
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def emulated(arm: Path, cpu: str) -> list[str]:
    """What starts the arm64 Python as that processor."""
    path = os.pathsep.join([str(ROOT), str(arm / "site")])
    options = ["-cpu", cpu, "-L", str(arm / "root"), "-E", f"PYTHONPATH={path}"]
    return [
        str(arm / "qemu" / "usr" / "bin" / "qemu-aarch64"),
        *options,
        str(arm / "root" / "usr" / "bin" / "python3.13"),
    ]


def agreeing(ours: list[int], theirs: list[int]) -> int:
    """How many tokens are the same, from the first on."""
    pairs = list(zip(ours, theirs, strict=True))
    return next((place for place, (a, b) in enumerate(pairs) if a != b), len(pairs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", type=Path)
    parser.add_argument("generic", type=Path)
    parser.add_argument("cortex_a72", type=Path)
    parser.add_argument("--cpus", nargs="+", default=list(CPUS))
    parser.add_argument("--tokens", type=int, default=6)
    parser.add_argument(
        "--as-shipped", action="store_true", help="each processor with the package of its boards' images"
    )
    args = parser.parse_args()
    packages = {"generic": args.generic.absolute(), "cortex-a72": args.cortex_a72.absolute()}
    pairs = [
        (cpu, target)
        for target in packages
        for cpu in args.cpus
        if not args.as_shipped or SHIPPED.get(cpu, target) == target
    ]
    here = {
        target: answer([sys.executable], package, args.tokens, {"PYTHONPATH": str(ROOT)})
        for target, package in packages.items()
    }
    wrong = False
    print("| processor | package | tokens as on x86-64 |\n|---|---|---|")
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each of them emulates one core
        answers = pool.map(lambda pair: answer(emulated(args.arm, pair[0]), packages[pair[1]], args.tokens, {}), pairs)
        for (cpu, target), tokens in zip(pairs, answers, strict=True):
            same = agreeing(here[target], tokens)
            wrong |= same < min(MUST_AGREE, args.tokens)
            print(f"| {cpu} | {target} | {same} of {args.tokens} |", flush=True)
    sys.exit(int(wrong))


if __name__ == "__main__":
    main()
