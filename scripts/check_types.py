"""The tables of `check_types`: GGUF tensor types, and forms of checkpoint folders, against exactness."""

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgeai.sources.gguf_blocks import DECODERS
from tests.fixtures.checkpoint_types import FORMS, folder_exactness
from tests.fixtures.gguf_types import Exactness, exactness

COLUMNS = (
    "type",
    "bits in source",
    "stored as",
    "bits in package",
    "stored differs",
    "computed differs",
    "re-quantized",
)


def main() -> None:
    """Print one line for each type."""
    print("GGUF, against gguf-py\n")
    show(exactness(encoding) for encoding in DECODERS)
    print("\nCheckpoint folders, against plain readers of the formats\n")
    show(folder_exactness(form) for form in FORMS)


def show(rows: Iterable[Exactness]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---|---:|---|---:|---:|---:|---|")
    for row in rows:
        cells = [row.encoding, f"{row.source_bits:.4g}", row.grid, f"{row.package_bits:.4g}"]
        cells += [_shown(row.stored), _shown(row.computed), "no"]
        print("| " + " | ".join(cells) + " |")


def _shown(difference: float) -> str:
    return "0" if difference == 0 else f"{difference:.1e}"


if __name__ == "__main__":
    main()
