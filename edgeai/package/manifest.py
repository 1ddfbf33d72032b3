"""The manifest of a model package: what the files are, where they came from, and how good they were measured to be."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from edgeai.recipe import Licence, Pooling, PromptDefaults, Strict

__all__ = [
    "ADAPTER_GRAPH_NAME",
    "ADAPTER_SITES_NAME",
    "GRAPH_NAME",
    "INT8_ADAPTER_GRAPH_NAME",
    "INT8_GRAPH_NAME",
    "INT8_PROMPT_GRAPH_NAME",
    "LICENCE_NAME",
    "MANIFEST_NAME",
    "PROMPT_GRAPH_NAME",
    "PROMPT_WEIGHTS_NAME",
    "SCHEMA_VERSION",
    "TEMPLATE_NAME",
    "TOKENIZER_NAME",
    "WEIGHTS_NAME",
    "Architecture",
    "EncoderInfo",
    "EncoderQuality",
    "FileEntry",
    "Kind",
    "Licence",
    "Manifest",
    "Origin",
    "Pooling",
    "PromptDefaults",
    "Quality",
    "Quantization",
    "Sample",
    "Strict",
    "TokenIds",
    "WarmBlocks",
]

Kind = Literal["decoder", "embedding", "reranker"]

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
GRAPH_NAME = "model.onnx"
WEIGHTS_NAME = "weights.bin"
TOKENIZER_NAME = "tokenizer.json"
TEMPLATE_NAME = "chat_template.jinja"
LICENCE_NAME = "LICENSE"
ADAPTER_GRAPH_NAME = "model_lora.onnx"
ADAPTER_SITES_NAME = "model_lora.json"
INT8_GRAPH_NAME = "model_int8_cache.onnx"
INT8_ADAPTER_GRAPH_NAME = "model_lora_int8_cache.onnx"
PROMPT_GRAPH_NAME = "model_prompt.onnx"
INT8_PROMPT_GRAPH_NAME = "model_prompt_int8_cache.onnx"
PROMPT_WEIGHTS_NAME = "prompt_weights.bin"


class FileEntry(Strict):
    """Digest and size of one file of the package."""

    sha256: str
    size: int


class Origin(Strict):
    """Where the weights came from, and what turned them into this package."""

    kind: str
    location: str
    revision: str
    sha256: dict[str, str]
    licence: str | None = None  # as the source states it, in its own words
    builder: str  # "edgeai 0.1.0"


class Architecture(Strict):
    """What the engine has to know about the graph."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    context_length: int
    parameters: int


class TokenIds(Strict):
    """Special token ids, and their text as chat templates name them."""

    eos: tuple[int, ...]
    bos: int | None = None
    add_bos: bool = False
    special_tokens: dict[str, str] = Field(default_factory=dict)


class Quantization(Strict):
    """How the weights are stored."""

    scheme: str  # "source" (transcoded exactly), "rtn", "gptq" (error-compensated)
    bits_per_weight: float  # with scales, over all tensors
    tensor_types: dict[str, int]  # number of tensors by encoding, such as {"Q4_1": 210}
    expected_kl: float | None = None  # by the sensitivities that a mixture of bits was chosen by
    scale_bytes: int = 0  # of weights.bin: scales as float32, which loading leaves in the file's pages


class Quality(Strict):
    """What validation measured against the plain numpy forward pass of the source's weights."""

    reference: str
    tokens: int
    mean_kl: float  # nats per token
    p99_kl: float | None = None  # 99 of 100 tokens are nearer than this
    max_kl: float
    max_logit_difference: float
    top_token_agreement: float  # 0 to 1
    perplexity: float
    reference_perplexity: float


class EncoderQuality(Strict):
    """What validation measured against the float model, over `texts` texts (pairs of texts for a reranker)."""

    reference: str
    texts: int
    mean_cosine: float  # of vectors; of a reranker, the correlation of its logits, in both
    min_cosine: float
    max_score_difference: float | None = None  # rerankers: of scores between 0 and 1


class EncoderInfo(Strict):
    """How an encoder's results are read."""

    dimension: int  # of a vector; 1 for a reranker
    max_length: int  # tokens of one sequence, special ones included
    pooling: Pooling | None = None  # None for a reranker, whose graph gives logits
    normalize: bool = False
    prompts: dict[str, str] = Field(default_factory=dict)  # what is put before a text, by what the text is
    default_prompt: str | None = None
    precise_layers: tuple[str, ...] = ()  # linear layers that one scale per row would have hurt most
    quality: EncoderQuality


class Sample(Strict):
    """An answer of the package beside that of the weights it was made from, both decoded greedily."""

    prompt: str
    answer: str
    source_answer: str | None = None  # None where the source was not asked


class WarmBlocks(Strict):
    """A file of KV blocks that were computed for prompts before anybody asked."""

    file: str = Field(pattern=r"^warm-[a-z0-9-]+\.kv$")
    model_digest: str  # of what computed them
    kv_type: str  # of their elements: "float32", ...
    block_tokens: int
    prompts: tuple[int, ...]  # tokens of each that need not be computed any more


class Manifest(Strict):
    """manifest.json, whole. It lists every other file of the package."""

    schema_version: int = SCHEMA_VERSION
    name: str
    target: str = "generic"  # the processors it is made for (cpu_targets.py); it runs on all, if slower
    kind: Kind = "decoder"
    description: str = ""
    files: dict[str, FileEntry]
    licence: Licence
    licence_accepted: bool = False  # whoever built it accepted a licence that is not open
    origin: Origin
    # edgeai's own graph; one that optimum exported (slower); one of those whose rows must not be padded to one length
    runtime: Literal["fused", "exported", "exported-unpadded"] = "fused"
    architecture: Architecture
    tokens: TokenIds
    quantization: Quantization
    quality: Quality | None = None  # of decoders
    encoder: EncoderInfo | None = None  # of the other kinds
    samples: tuple[Sample, ...] = ()
    prompt: PromptDefaults = Field(default_factory=PromptDefaults)
    warm: tuple[WarmBlocks, ...] = ()

    @model_validator(mode="after")
    def _has_what_its_kind_has(self) -> Self:
        if self.kind == "decoder":
            if self.quality is None or self.encoder is not None:
                raise ValueError("a decoder has a quality and no encoder")
        elif self.encoder is None or self.quality is not None:
            raise ValueError(f"{self.kind} packages have an encoder and no quality of their own")
        return self

    @property
    def measured(self) -> Quality | EncoderQuality:
        """What was measured when the package was built, whatever its kind."""
        quality = self.encoder.quality if self.encoder else self.quality
        if quality is None:
            raise ValueError(f"the manifest of {self.name} has no quality")
        return quality
