"""Checkpoint folders: every tensor as it is stored, by text-only names, or an error that names file and tensor."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeai.build.target import name_from
from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.folder import FolderSource
from edgeai.sources.open import open_path
from edgeai.sources.weights import FloatTensor, Provenance
from tests.fixtures.checkpoints import Checkpoint, from_bfloat16, safetensors, tiny_checkpoint, to_bfloat16

INDEX = "model.safetensors.index.json"
NORM, TABLE, HEAD = "model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"


def index_of(checkpoint: Checkpoint) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(checkpoint._weights()[INDEX])
    return document


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_tensor_is_read_as_it_is(dtype: str, tied: bool, shards: int, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(dtype, shards=shards, tie_word_embeddings=tied)
    source = open_path(checkpoint.write(tmp_path / "tiny"))
    assert isinstance(source, FolderSource)
    assert source.config == checkpoint.config
    listed = {info.name: (info.shape, info.encoding) for info in source.tensors}
    assert listed == {name: (values.shape, dtype) for name, values in checkpoint.tensors.items()}
    for name, stored in checkpoint.tensors.items():
        tensor = source.load(name)
        assert isinstance(tensor, FloatTensor)
        assert tensor.values.dtype == (np.float16 if dtype == "F16" else np.float32)
        assert np.array_equal(tensor.values, from_bfloat16(stored) if dtype == "BF16" else stored)


def test_a_tensor_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"tiny has no tensor 'model\.none'"):
        FolderSource(tiny_checkpoint().write(tmp_path / "tiny")).load("model.none")


def test_provenance_lists_every_file_and_no_folder(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(shards=2)
    checkpoint.files["README.md"] = b"---\nlicense: apache-2.0\n---\n# Tiny\n"
    folder = checkpoint.write(tmp_path / "Tiny Model")
    (folder / "training_args.bin").write_bytes(b"not read")
    provenance = FolderSource(folder).provenance
    assert (provenance.kind, provenance.location, provenance.licence) == ("path", "Tiny Model", "apache-2.0")
    read = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "training_args.bin"}
    assert provenance.sha256 == {name: hashlib.sha256(data).hexdigest() for name, data in sorted(read.items())}
    assert str(tmp_path) not in repr(provenance)
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes() + b"\n")
    assert FolderSource(folder).provenance.revision != provenance.revision


def test_provenance_of_a_download_is_kept(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    checkpoint.files["README.md"] = b"---\nlicense: mit\n---\n"
    given = Provenance("hub", "someone/tiny", "0" * 40, {"config.json": "1" * 64})
    kept = FolderSource(checkpoint.write(tmp_path / "x"), provenance=given).provenance
    assert kept == Provenance("hub", "someone/tiny", "0" * 40, {"config.json": "1" * 64}, "mit")


def test_links_of_a_hub_cache_are_followed(tmp_path: Path) -> None:
    blobs = tiny_checkpoint(shards=2).write(tmp_path / "blobs")
    snapshot = tmp_path / "models--Some--Model-1.5B" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("../../../blobs") / path.name)
    source = open_path(snapshot)
    assert source.load(NORM).shape == (64,)
    assert set(source.provenance.sha256) == {path.name for path in blobs.iterdir()}
    assert source.provenance.location == "Some/Model-1.5B"
    assert name_from(snapshot) == name_from(snapshot / "model-00001-of-00002.safetensors") == "model-1.5b"


def test_the_file_itself_may_be_named(tmp_path: Path) -> None:
    folder = tiny_checkpoint().write(tmp_path / "tiny")
    assert open_path(folder / "model.safetensors").provenance == open_path(folder).provenance


def test_one_file_of_any_name(tmp_path: Path) -> None:
    folder = tiny_checkpoint().write(tmp_path / "tiny")
    (folder / "model.safetensors").rename(folder / "weights-of-mine.safetensors")
    assert open_path(folder).load(NORM).shape == (64,)


# Multi-modal checkpoints, and other forms of names


def multimodal(prefix: str, head: str) -> Checkpoint:
    plain = tiny_checkpoint(tie_word_embeddings=False)
    tensors = {name.replace("model.", prefix, 1): values for name, values in plain.tensors.items()}
    tensors[head] = tensors.pop(HEAD)
    for name in ("vision_tower.patch.weight", "multi_modal_projector.norm.weight", "model.vision_tower.x.bias"):
        tensors[name] = np.zeros((2, 2), np.float32)
    text = {key: value for key, value in plain.config.items() if key not in ("model_type", "tie_word_embeddings")}
    config = {"model_type": "gemma3", "tie_word_embeddings": False, "vision_config": {}, "text_config": text}
    return Checkpoint(config, tensors)


@pytest.mark.parametrize(
    ("prefix", "head"),
    [("language_model.model.", "language_model.lm_head.weight"), ("model.language_model.", "lm_head.weight")],
)
def test_the_text_part_of_a_multimodal_checkpoint(prefix: str, head: str, tmp_path: Path) -> None:
    source = FolderSource(multimodal(prefix, head).write(tmp_path / "seeing"))
    plain = tiny_checkpoint(tie_word_embeddings=False)
    assert source.config == plain.config | {"model_type": "gemma3_text"}
    assert {info.name for info in source.tensors} == plain.tensors.keys()
    for name, values in plain.tensors.items():
        assert np.array_equal(source.load(name).dequantize(), values)


def test_what_no_rule_knows_is_presented(tmp_path: Path) -> None:
    """A part that we do not know may belong to the text; the build then finds that nothing uses it."""
    checkpoint = multimodal("model.language_model.", "lm_head.weight")
    checkpoint.tensors["model.language_model.per_layer_table.weight"] = np.zeros((2, 2), np.float32)
    checkpoint.tensors["ear.weight"] = np.zeros((2, 2), np.float32)
    names = {info.name for info in FolderSource(checkpoint.write(tmp_path / "x")).tensors}
    assert {"model.per_layer_table.weight", "ear.weight"} <= names


def test_computed_buffers_are_left_out(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    checkpoint.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(8, np.float32)
    names = [info.name for info in FolderSource(checkpoint.write(tmp_path / "x")).tensors]
    assert set(names) == tiny_checkpoint().tensors.keys()


def test_a_bare_decoder_has_its_prefix_put_back(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    checkpoint.tensors = {name.removeprefix("model."): values for name, values in checkpoint.tensors.items()}
    names = {info.name for info in FolderSource(checkpoint.write(tmp_path / "x")).tensors}
    assert names == tiny_checkpoint().tensors.keys()


def test_the_head_of_a_tied_model_may_be_stored_again(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("BF16")
    checkpoint.tensors[HEAD] = checkpoint.tensors[TABLE].copy()
    source = FolderSource(checkpoint.write(tmp_path / "same"))
    assert HEAD not in {info.name for info in source.tensors}
    checkpoint.tensors[HEAD][5, 3] ^= 1
    with pytest.raises(UnsupportedModel, match="ties the output head to the token table, but there are two"):
        FolderSource(checkpoint.write(tmp_path / "other"))


# Bad input


def changed_index(change: Callable[[dict[str, Any]], None]) -> Callable[[Checkpoint], None]:
    def apply(checkpoint: Checkpoint) -> None:
        index = index_of(checkpoint)
        change(index)
        checkpoint.files[INDEX] = json.dumps(index).encode()

    return apply


def put(**places: str) -> Callable[[Checkpoint], None]:
    return changed_index(lambda index: index["weight_map"].update({k.replace("_", "."): v for k, v in places.items()}))


def truncated(checkpoint: Checkpoint) -> None:
    name = "model-00002-of-00003.safetensors"
    checkpoint.files[name] = checkpoint._weights()[name][:-10]


def duplicate(checkpoint: Checkpoint) -> None:
    shards = [name for name in checkpoint._weights() if name != INDEX]
    names = list(checkpoint.tensors)
    checkpoint.files[shards[1]] = safetensors({n: checkpoint.tensors[n] for n in [names[0], *names[1::3]]})


def set_total(index: dict[str, Any]) -> None:
    index["metadata"]["total_size"] += 4


def fp8(checkpoint: Checkpoint) -> None:
    checkpoint.shards = 1
    values = {**checkpoint.tensors, NORM: np.zeros(64, np.uint8)}
    checkpoint.files["model.safetensors"] = safetensors(values, **{NORM: {"dtype": "F8_E4M3"}})


def number(checkpoint: Checkpoint) -> None:
    checkpoint.tensors[NORM] = np.arange(64, dtype=np.int64)


def config(text: bytes) -> Callable[[Checkpoint], None]:
    return lambda checkpoint: checkpoint.files.update({"config.json": text})


BAD: dict[str, tuple[Callable[[Checkpoint], None], type[SourceError], str]] = {
    "truncated shard": (truncated, SourceError, r"model-00002-of-00003\.safetensors: tensor .* past the end"),
    "missing file": (
        put(model_norm_weight="model-00009-of-00009.safetensors"),
        SourceError,
        "index.json names model-00009-of-00009.safetensors, which is not there",
    ),
    "wrong file": (
        put(model_norm_weight="model-00001-of-00003.safetensors"),
        SourceError,
        "model-00001-of-00003.safetensors has no tensor 'model.norm.weight'",
    ),
    "tensor of no file": (
        put(model_extra_weight="model-00001-of-00003.safetensors"),
        SourceError,
        "has no tensor 'model.extra.weight', though",
    ),
    "duplicate": (
        duplicate,
        SourceError,
        "tensor 'model.embed_tokens.weight' is in model-00001-of-00003.safetensors and again in model-00002",
    ),
    "total": (changed_index(set_total), SourceError, r"index\.json states \d+ bytes of tensors, the files hold \d+"),
    "parent folder": (put(model_norm_weight="../secret.safetensors"), SourceError, r"'\.\./secret\.safetensors'"),
    "absolute path": (put(model_norm_weight="/etc/passwd"), SourceError, "names the file '/etc/passwd'"),
    "backslash": (put(model_norm_weight="..\\x.safetensors"), SourceError, "not one of this folder"),
    "pickled shard": (put(model_norm_weight="pytorch_model.bin"), UnsupportedModel, "pickled weights are not read"),
    "no map": (changed_index(lambda index: index.pop("weight_map")), SourceError, "weight_map is no table"),
    "empty map": (changed_index(lambda index: index["weight_map"].clear()), SourceError, "weight_map is no table"),
    "map of numbers": (changed_index(lambda i: i["weight_map"].update(x=3)), SourceError, "weight_map is no table"),
    "index is no JSON": (lambda c: c.files.update({INDEX: b"{"}), SourceError, r"index\.json is not JSON"),
    "float 8": (fp8, UnsupportedModel, r"tensor 'model\.norm\.weight' is of type F8_E4M3"),
    "integers": (number, UnsupportedModel, r"tensor 'model\.norm\.weight' is of type I64"),
    "broken config": (config(b'{"model_type": '), SourceError, r"config\.json is not JSON"),
    "config of another kind": (config(b"[]"), SourceError, r"config\.json is no JSON object"),
    "no model_type": (config(b"{}"), SourceError, r"config\.json: model_type is missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str, tmp_path: Path) -> None:
    spoil, error, words = BAD[case]
    (tmp_path / "secret.safetensors").write_bytes(safetensors({NORM: np.ones(64, np.float32)}))
    checkpoint = tiny_checkpoint(shards=3)
    spoil(checkpoint)
    with pytest.raises(error, match=words) as caught:
        open_path(checkpoint.write(tmp_path / "bad"))
    assert caught.value.hint
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_values_that_are_no_numbers(dtype: str, bad: float, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(dtype, shards=2)
    values = checkpoint.tensors[NORM].copy()
    values[7] = to_bfloat16(np.array(bad)) if dtype == "BF16" else bad
    checkpoint.tensors[NORM] = values
    source = FolderSource(checkpoint.write(tmp_path / "bad"))
    with pytest.raises(SourceError, match=r"model-0000\d-of-00002\.safetensors: tensor 'model\.norm\.weight' holds"):
        source.load(NORM)


def test_there_is_no_config(tmp_path: Path) -> None:
    folder = tiny_checkpoint().write(tmp_path / "tiny")
    (folder / "config.json").unlink()
    with pytest.raises(SourceError, match=r"cannot read config\.json"):
        open_path(folder)


def test_several_files_without_an_index(tmp_path: Path) -> None:
    folder = tiny_checkpoint(shards=2).write(tmp_path / "tiny")
    (folder / INDEX).unlink()
    with pytest.raises(SourceError, match=r"holds model-00001.*, model-00002.* but no model\.safetensors\.index\.json"):
        open_path(folder)


class Trap:
    """Unpickling this would leave a file behind."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, ("unpickled", "w")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "last.ckpt", "weights.pkl"])
def test_pickles_are_refused_and_never_opened(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tiny_checkpoint().write(tmp_path / "tiny")
    (folder / "model.safetensors").unlink()
    (folder / "training_args.bin").write_bytes(b"")
    (folder / name).write_bytes(pickle.dumps(Trap()))
    for path in (folder, folder / name):
        with pytest.raises(UnsupportedModel, match=f"^{name}: pickled weights are not read") as caught:
            open_path(path)
        assert "safetensors" in caught.value.hint
    assert not (tmp_path / "unpickled").exists()


def test_pickles_beside_safetensors_do_not_matter(tmp_path: Path) -> None:
    folder = tiny_checkpoint().write(tmp_path / "tiny")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    assert "pytorch_model.bin" not in open_path(folder).provenance.sha256


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    folder = tiny_checkpoint().write(tmp_path / "tiny")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    with pytest.raises(SourceError, match="holds a LoRA adapter, not a model"):
        open_path(folder)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    folder = tiny_checkpoint().write(tmp_path / "tiny")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"tiny holds no weights: there is neither model\.safetensors nor"):
        open_path(folder)
