"""The table of `check_types`: GGUF tensor types against exactness."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgeai.sources.gguf_blocks import DECODERS
from tests.fixtures.gguf_types import exactness

COLUMNS = ("type", "bits in GGUF", "stored as", "bits in package", "stored differs", "computed differs", "re-quantized")


def main() -> None:
    """Print one line of a Markdown table for each type."""
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---|---:|---|---:|---:|---:|---|")
    for encoding in DECODERS:
        row = exactness(encoding)
        cells = [encoding, f"{row.source_bits:.4g}", row.grid, f"{row.package_bits:.4g}"]
        cells += [_shown(row.stored), _shown(row.computed), "no"]
        print("| " + " | ".join(cells) + " |")


def _shown(difference: float) -> str:
    return "0" if difference == 0 else f"{difference:.1e}"


if __name__ == "__main__":
    main()
