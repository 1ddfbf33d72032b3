"""A Hugging Face checkpoint folder as a `WeightSource`: config.json, safetensors files, tokenizer and model card."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.checkpoint_files import CONFIG, INCOMPLETE, INDEX, find_arrays, read_json, title_of
from edgeai.sources.checkpoint_text import text_config, text_names
from edgeai.sources.folder_tokenizer import read_tokenizer, tokenizer_files
from edgeai.sources.gguf import file_digest
from edgeai.sources.model_card import CARD, stated_licence
from edgeai.sources.quantized_checkpoint import SETTINGS_FILES, entries, settings_of
from edgeai.sources.safetensors import StoredArray
from edgeai.sources.weights import Provenance, Tensor, TensorInfo, TokenizerFiles

HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"
COUNTED = "embeddings.position_ids"  # 0, 1, 2, ...: no weights, but older encoder checkpoints hold them
# What sentence-transformers writes beside an encoder.
ENCODER_FILES = frozenset(
    {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "config_sentence_transformers.json"}
)
COMPARED_AT_ONCE = 1 << 22  # bytes


class FolderSource:
    """An opened checkpoint folder. Names, types and sizes are checked when it is opened, values when they are read."""

    def __init__(self, path: Path, *, provenance: Provenance | None = None) -> None:
        """Open `path`; without `provenance` it is that of a local folder.

        Raises `SourceError` for what is damaged or missing, `UnsupportedModel` for what edgeai does not read.
        """
        self.path = path
        self._arrays = find_arrays(path)
        outer = read_json(path / CONFIG)
        self._config = text_config(outer)
        names = text_names(self._arrays, multimodal="text_config" in outer)
        arrays = {name: self._arrays[stored] for name, stored in names.items() if not name.endswith(COUNTED)}
        self._entries = entries(arrays, settings_of(self._config, path))
        self._drop_tied_head()
        self._given = provenance

    @property
    def config(self) -> Mapping[str, Any]:
        """The model's configuration, of its language model where it has other parts."""
        return self._config

    @cached_property
    def provenance(self) -> Provenance:
        """Where the bytes came from. The digests of all files are computed when this is first asked for."""
        licence = stated_licence(self.path)
        if self._given is not None:
            return replace(self._given, licence=self._given.licence or licence)
        digests = {name: file_digest(self.path / name) for name in self._files()}
        whole = hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode())
        return Provenance("path", title_of(self.path), whole.hexdigest(), digests, licence)

    @property
    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors of the language model, by the name that a text-only checkpoint gives them."""
        return [entry.info for entry in self._entries.values()]

    def load(self, name: str) -> Tensor:
        """Read one tensor. Raises `SourceError` that names file and tensor for values that are no finite numbers."""
        if name not in self._entries:
            raise SourceError(f"{self.path.name} has no tensor {name!r}", INCOMPLETE)
        return self._entries[name].read()

    def tokenizer(self) -> TokenizerFiles:
        """The tokenizer and chat template beside the weights."""
        return read_tokenizer(self.path, self._config)

    def _files(self) -> list[str]:
        """Names of all files that are read, in order."""
        weights = {array.path.name for array in self._arrays.values()}
        company = {CONFIG, INDEX, CARD, *tokenizer_files(self.path), *SETTINGS_FILES, *ENCODER_FILES}
        return sorted(weights | {name for name in company if (self.path / name).is_file()})

    def _drop_tied_head(self) -> None:
        """A tied checkpoint may hold the token table a second time, under the head's name.

        Where the two differ the configuration is wrong about one of them, and which is not ours to guess.
        """
        if not self._config.get("tie_word_embeddings") or not {HEAD, TABLE} <= self._entries.keys():
            return
        head, table = self._entries[HEAD], self._entries[TABLE]
        if not (head.array and table.array and _same_bytes(head.array, table.array)):
            raise UnsupportedModel(
                f"{self.path.name}: {CONFIG} ties the output head to the token table, but there are two that differ",
                f"set tie_word_embeddings to false in {CONFIG} if the head is to be used, or remove {HEAD}",
            )
        del self._entries[HEAD]


def _same_bytes(first: StoredArray, second: StoredArray) -> bool:
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    maps = [np.memmap(array.path, np.uint8, "r", array.start, (array.nbytes,)) for array in (first, second)]
    pieces = (slice(start, start + COMPARED_AT_ONCE) for start in range(0, first.nbytes, COMPARED_AT_ONCE))
    return all(np.array_equal(maps[0][piece], maps[1][piece]) for piece in pieces)
