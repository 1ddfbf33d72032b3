"""Blocks that came with a package: found by key, never believed when they are damaged, and above those on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgeai.errors import PackageError
from edgeai.package import Package, PackageWriter
from edgeai.package.block_store import BlockStore
from edgeai.package.kv_blocks import HEADER, BlockFormat
from edgeai.package.manifest import WarmBlocks
from edgeai.package.warm_blocks import LayeredStore, WarmStore, open_warm
from tests.package.stored_blocks import SHAPE, block, key

Make = Callable[..., Package]
FORM = BlockFormat(SHAPE, owner="me")
NAME = "warm-float32-32.kv"


def records(*numbers: int) -> bytes:
    return b"".join(part for number in numbers for part in FORM.pack(key(number), block(number)))


def warm_package(package: Package, content: bytes, **changes: str) -> Package:
    described = {"model_digest": package.model_digest, "kv_type": "float32"} | changes
    with PackageWriter(package.path) as writer:
        writer.adopt(package)
        writer.write(NAME, content)
        blocks = WarmBlocks(file=NAME, block_tokens=32, prompts=(32,), **described)
        return writer.publish(package.manifest.model_copy(update={"warm": (blocks,)}))


def opened(package: Package) -> WarmStore | None:
    return open_warm(package, FORM, kv_type="float32", block_tokens=32)


def loaded(store: WarmStore | LayeredStore, count: int = 9) -> list[int]:
    found = []
    for number in range(count):
        one = store.load(key(number))
        if one is not None:
            np.testing.assert_array_equal(one, block(number))
            found.append(number)
    return found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WarmStore]:
    (tmp_path / NAME).write_bytes(records(1, 2, 3))
    with closing(WarmStore(tmp_path / NAME, FORM)) as store:
        yield store


def test_all_that_was_written_is_found(store: WarmStore) -> None:
    assert len(store) == 3
    assert loaded(store) == [1, 2, 3]
    assert store.load(key(9)) is None
    assert store.damaged == 0


@pytest.mark.parametrize("at", range(0, FORM.block_bytes, 7))
def test_one_wrong_bit_is_noticed(tmp_path: Path, at: int) -> None:
    data = bytearray(records(1, 2, 3))
    data[FORM.block_bytes + at] ^= 4
    (tmp_path / NAME).write_bytes(data)
    with closing(WarmStore(tmp_path / NAME, FORM)) as store:
        assert loaded(store) == [1, 3]


def test_damage_is_said_and_the_block_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = records(1, 2)
    (tmp_path / NAME).write_bytes(data[:-1] + b"?")
    with closing(WarmStore(tmp_path / NAME, FORM)) as store:
        assert key(2) in store
        assert store.load(key(2)) is None
        assert key(2) not in store
        assert (store.damaged, loaded(store)) == (1, [1])
    assert caplog.text.count("cannot be used and is computed instead") == 1


def test_the_package_may_be_replaced_meanwhile(tmp_path: Path, store: WarmStore) -> None:
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).write_bytes(records(4, 5, 6))
    assert loaded(store) == [1, 2, 3]


def test_blocks_of_a_package(make_package: Make) -> None:
    package = warm_package(make_package(), records(1, 2))
    store = opened(package)
    assert store is not None
    assert loaded(store) == [1, 2]
    package.verify()
    assert Package.open(package.path).warm_files == {NAME}


def test_they_are_not_part_of_what_they_are_bound_to(make_package: Make) -> None:
    cold = make_package()
    warm = warm_package(cold, records(1))
    assert warm.digest != cold.digest
    assert warm.model_digest == cold.model_digest
    assert make_package(chat_template_jinja=b"other").model_digest == cold.model_digest
    assert make_package(weights_bin=b"other").model_digest != cold.model_digest
    assert make_package(model_onnx=b"other").model_digest != cold.model_digest


@pytest.mark.parametrize("changes", [{"model_digest": "0" * 64}, {"kv_type": "int8"}])
def test_those_for_another_model_or_cache_are_left(make_package: Make, changes: dict[str, str]) -> None:
    assert opened(warm_package(make_package(), records(1), **changes)) is None


def test_a_package_without_any(make_package: Make) -> None:
    assert opened(make_package()) is None


@pytest.mark.parametrize("content", [records(1, 2)[:-20], records(1, 2) + b"more", b"", b"x" * 300])
def test_a_damaged_file_does_not_keep_a_package_from_opening(
    make_package: Make, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    package = warm_package(make_package(), records(1, 2))
    (package.path / NAME).write_bytes(content)
    store = opened(Package.open(package.path))
    assert store is not None
    assert set(loaded(store)) == {n for n in (1, 2) if content.startswith(records(1, 2)[: n * FORM.block_bytes])}
    assert "damaged" in caplog.text or content.startswith(records(1, 2))
    with pytest.raises(PackageError, match=NAME):
        Package.open(package.path, verify=True)


def test_a_file_that_is_gone_does_not_either(make_package: Make, caplog: pytest.LogCaptureFixture) -> None:
    package = warm_package(make_package(), records(1))
    (package.path / NAME).unlink()
    assert opened(Package.open(package.path)) is None
    assert "computed instead" in caplog.text


def test_only_files_of_blocks_may_be_left_out() -> None:
    for name in ("weights.bin", "warm-../x.kv", "warm-X.kv"):
        with pytest.raises(ValueError, match="pattern"):
            WarmBlocks(file=name, model_digest="", kv_type="float32", block_tokens=32, prompts=())


def test_the_package_s_blocks_lie_above_those_on_disk(tmp_path: Path, store: WarmStore) -> None:
    disk = BlockStore(tmp_path / "kv", FORM, disk_bytes=1 << 20, daily_bytes=1 << 20)
    with closing(LayeredStore(store, disk)) as layered:
        assert not layered.offer(key(1), block(1))  # it is in the package
        assert layered.offer(key(4), block(4))
        layered.flush()
        assert layered.run(map(key, (1, 2, 3, 4, 5, 1))) == [key(n) for n in (1, 2, 3, 4)]
        assert loaded(layered) == [1, 2, 3, 4]
        assert disk.stats().loaded == 1


def test_a_block_that_is_damaged_in_the_package_is_kept_on_disk(tmp_path: Path) -> None:
    data = bytearray(records(1, 2))
    data[HEADER.size] ^= 1
    (tmp_path / NAME).write_bytes(data)
    disk = BlockStore(tmp_path / "kv", FORM, disk_bytes=1 << 20, daily_bytes=1 << 20)
    with closing(LayeredStore(WarmStore(tmp_path / NAME, FORM), disk)) as layered:
        assert layered.load(key(1)) is None
        assert layered.run([key(1)]) == []
        assert layered.offer(key(1), block(1))
        layered.flush()
        assert loaded(layered) == [1, 2]


def test_without_a_disk_nothing_is_written(store: WarmStore) -> None:
    layered = LayeredStore(store, None)
    assert not layered.offer(key(4), block(4))
    layered.flush()
    assert layered.run([key(1), key(4)]) == [key(1)]
