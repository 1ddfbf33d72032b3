"""GRUB's environment block, beside GRUB's own tool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeai.appliance.grub import Grub, format_environment, new_environment, parse_environment
from edgeai.errors import StateDamaged

HERE = Path("grubenv")
names = st.from_regex(r"[a-z_][a-z0-9_]{0,12}", fullmatch=True)
values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)


@given(st.dictionaries(names, values, max_size=4))
@example({"a": "\n#", "b": "\\"})
def test_a_block_is_read_as_it_was_written(variables: dict[str, str]) -> None:
    block = format_environment(variables)
    assert len(block) == 1024
    assert parse_environment(block, HERE) == variables


@pytest.mark.skipif(shutil.which("grub-editenv") is None, reason="GRUB's tools are not installed")
def test_grubs_own_tool_reads_and_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "grubenv"
    path.write_bytes(new_environment())

    def editenv(*arguments: str) -> str:
        return subprocess.run(
            ["grub-editenv", str(path), *arguments], check=True, capture_output=True, text=True
        ).stdout

    assert editenv("list").splitlines() == ["good=a", "try=", "tries=0"]
    editenv("set", "try=b", "tries=3", "odd=back\\slash")
    assert parse_environment(path.read_bytes(), path) == {"good": "a", "try": "b", "tries": "3", "odd": "back\\slash"}
    path.unlink()
    editenv("create")
    assert parse_environment(path.read_bytes(), path) == {}


@pytest.mark.parametrize("block", [b"", new_environment()[:512], b"x" * 1024, new_environment().replace(b"=", b"-")])
def test_a_damaged_block_is_named(block: bytes) -> None:
    with pytest.raises(StateDamaged, match="grubenv"):
        parse_environment(block, HERE)


def test_more_than_a_sector_is_refused() -> None:
    with pytest.raises(StateDamaged, match="does not fit one sector"):
        format_environment({"long": "x" * 500})


def test_a_command_line_is_a_script() -> None:
    name, content = Grub(HERE).command_line_file("root=PARTUUID=ed9ea100-02 edgeai.slot=a")
    assert (name, content) == ("cmdline.cfg", b"set cmdline='root=PARTUUID=ed9ea100-02 edgeai.slot=a'\n")
    with pytest.raises(ValueError, match="no quotes"):
        Grub(HERE).command_line_file("it's")
