"""Which matrices of a model become one operator, and so share a grid: those that read the same inputs, and experts.

Found by running one token through the plain decoder, which works for every architecture.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeai.architectures.blocks import LoadTensor
from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.reference import EMBEDDINGS, Floats, ReferenceDecoder
from edgeai.architectures.registry import run_reference

HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Group:
    """Matrices of one grid, in the order in which they are used."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]

    @property
    def weights(self) -> int:
        return sum(rows * cols for rows, cols in self.shapes)

    @property
    def is_table(self) -> bool:
        """Whether it is the token table or the output head."""
        return self.names[0] in (EMBEDDINGS, HEAD)


class _Observer(ReferenceDecoder):
    """Notes which matrices are asked for with which inputs."""

    def __init__(self, config: DecoderConfig, load: LoadTensor) -> None:
        super().__init__(config, load, [0])
        self.found: list[tuple[list[str], list[tuple[int, int]]]] = []
        self._inputs: Floats | None = None
        self._experts_of: str | None = None

    def project(self, x: Floats, name: str) -> Floats:
        weights = self.load(name).dequantize()
        layer, expert, _ = name.partition(".experts.")
        if x is not self._inputs and not (expert and layer == self._experts_of):
            self.found.append(([], []))
        self._inputs, self._experts_of = x, layer if expert else None
        names, shapes = self.found[-1]
        names.append(name)
        shapes.append((weights.shape[0], weights.shape[1]))
        product: Floats = x @ weights.T
        return product


def find_groups(config: DecoderConfig, load: LoadTensor) -> list[Group]:
    """All matrices of a model in the order of their use; the token table and the head come last."""
    observer = _Observer(config, load)
    run_reference(observer)
    groups = [Group(tuple(names), tuple(shapes)) for names, shapes in observer.found]
    tables = [EMBEDDINGS] if config.tied_embeddings else [EMBEDDINGS, HEAD]
    return groups + [Group((name,), ((config.vocab_size, config.hidden_size),)) for name in tables]
