"""Faults tried on a real server with the real model, with counts: check_faults.py PACKAGE [--kills N] [--state FILE]

After each fault a server must start, answer golden questions with the right tokens (the numbers it has to quote stand
in the blocks that were damaged) and about the right log probabilities, and its stored blocks must keep their budget.
Golden answers come from a server that keeps nothing on disk. With `--state`, a run that was interrupted, or that ran
out of `--seconds`, is continued; the table shows what has been tried so far. Exit code 1 if anything did not survive.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from faults_lab import Lab, Record
from faults_tried import FAULTS

OTHER_ROWS = [("memory pressure", "tried by `./scripts/check_memory_limit`")]


def table(record: Record, missing: dict[str, str]) -> str:
    """Markdown: what was tried, what was survived, and what showed that the faults took effect."""
    lines = ["| fault | tried | survived | seen |", "|---|---|---|---|"]
    for name in FAULTS:
        kinds = [kind for kind in record.tried if kind.split(": ")[0] == name]
        tried, survived = (sum(counts[kind] for kind in kinds) for counts in (record.tried, record.survived))
        seen = [f"{count} {what.split('/')[1]}" for what, count in record.seen.items() if what.split("/")[0] == name]
        lines.append(f"| {name} | {tried} | {survived} | {', '.join(seen) or missing.get(name, '')} |")
        parts = sorted(kinds) if len(kinds) > 1 else []
        lines += [f"| - {part.split(': ')[1]} | {record.tried[part]} | {record.survived[part]} | |" for part in parts]
    lines += [f"| {name} | | | {where} |" for name, where in OTHER_ROWS]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--kills", type=int, default=100, help="kill -9 at so many random moments")
    parser.add_argument("--damages", type=int, default=200, help="so many damaged files")
    parser.add_argument("--others", type=int, default=20, help="so many of each other fault")
    parser.add_argument("--only", choices=FAULTS, action="append", help="this kind; several times for several")
    parser.add_argument("--seconds", type=float, default=3600, help="begin nothing new after so long")
    parser.add_argument("--state", type=Path, help="counts so far, to be continued")
    args = parser.parse_args()
    wanted = {"kill -9": args.kills, "damaged file": args.damages}
    with tempfile.TemporaryDirectory(prefix="edgeai-faults-") as name:
        work = Path(name)
        record = Record.open(args.state or work / "state.json")
        lab = Lab(args.package.resolve(), work, record, args.seconds)
        missing = {}
        for fault, attempt in FAULTS.items():
            count = wanted.get(fault, args.others)
            if (not args.only or fault in args.only) and record.count(fault) < count and not lab.time_is_up:
                problem = attempt(lab, count)
                missing |= {fault: problem} if problem else {}
    print(table(record, missing))
    for failure in record.failures:
        print(failure, file=sys.stderr)
    sys.exit(bool(record.failures))


if __name__ == "__main__":
    main()
