"""What an encoder's folder says about how its results are read, in the files of sentence-transformers.

    config.json                          architecture, sizes, number of labels
    modules.json                         the steps: Transformer, Pooling, Normalize
    1_Pooling/config.json                which pooling
    sentence_bert_config.json            max_seq_length
    config_sentence_transformers.json    prompts

What is not known here would change the vectors: it is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.package.manifest import Kind, Pooling
from edgeai.recipe import EncoderPlan

__all__ = ["EncoderCheckpoint", "is_encoder", "read_checkpoint"]

MODEL_TYPES = ("bert", "roberta", "xlm-roberta")
HEAD = "ForSequenceClassification"
# What checkpoints of encoders call themselves besides; a pretraining head is not used.
BODIES = ("Model", "ForMaskedLM", "ForPreTraining")
OFFSET_TYPES = frozenset({"roberta", "xlm-roberta"})  # positions start after the padding token's id
STEPS = ("Transformer", "Pooling", "Normalize")
POOLING_MODES: Mapping[str, Pooling] = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}


@dataclass(frozen=True, slots=True)
class EncoderCheckpoint:
    """An encoder's folder, understood."""

    folder: Path
    config: Mapping[str, Any]
    kind: Kind
    pooling: Pooling | None
    normalize: bool
    max_length: int
    prompts: Mapping[str, str]
    default_prompt: str | None

    @property
    def dimension(self) -> int:
        """Length of a result: a vector, or one logit."""
        return 1 if self.pooling is None else int(self.config["hidden_size"])


def is_encoder(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is an encoder's: by its model type, or as something that gives classes."""
    names = config.get("architectures") or []
    return config.get("model_type") in MODEL_TYPES or any(str(name).endswith(HEAD) for name in names)


def read_checkpoint(folder: Path, plan: EncoderPlan) -> EncoderCheckpoint:
    """Read `folder`; what `plan` says goes before what the files say.

    Raises `UnsupportedModel` for what is not known, `SourceError` for what is damaged or not said at all.
    """
    config = _read(folder / "config.json")
    kind = _kind(config)
    pooling: Pooling | None = None
    normalize = False
    if kind == "embedding":
        found_pooling, found_normalize = _steps(folder, int(config["hidden_size"]))
        pooling = plan.pooling or found_pooling
        normalize = found_normalize if plan.normalize is None else plan.normalize
        if pooling is None:
            raise SourceError(
                f"{folder.name} does not say how its vectors are pooled: it has no modules.json",
                'say it in a recipe: [encoder] pooling = "mean" or "cls"',
            )
    prompts, default = _prompts(folder, plan)
    return EncoderCheckpoint(
        folder, config, kind, pooling, normalize, _max_length(folder, config, plan), prompts, default
    )  # fmt: skip


def _kind(config: Mapping[str, Any]) -> Kind:
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise UnsupportedModel(
            f"encoders of type {model_type!r} are not supported", f"supported are {', '.join(MODEL_TYPES)}"
        )
    if config.get("position_embedding_type", "absolute") != "absolute" or config.get("is_decoder"):
        raise UnsupportedModel("only encoders with absolute positions are supported", "choose another model")
    name = str((config.get("architectures") or [""])[0])
    if name.endswith(HEAD):
        labels = len(config.get("id2label") or {}) or int(config.get("num_labels", 2))
        if labels != 1:
            raise UnsupportedModel(
                f"{name} with {labels} labels is a classifier", "a reranker has one label; classifiers are not served"
            )
        return "reranker"
    if not name.endswith(BODIES):
        raise UnsupportedModel(f"{name or 'a model without architecture'} is not supported", "use an encoder's weights")
    return "embedding"


def _steps(folder: Path, width: int) -> tuple[Pooling | None, bool]:
    """Pooling and whether vectors are normalized, from modules.json; (None, False) without one."""
    path = folder / "modules.json"
    if not path.is_file():
        return None, False
    modules = _read(path)
    names = [str(module["type"]).rpartition(".")[2] for module in modules]
    unknown = [name for name in names if name not in STEPS]
    if unknown or names[:2] != ["Transformer", "Pooling"] or len(names) > len(STEPS):
        raise UnsupportedModel(
            f"the steps {', '.join(unknown or names)} of modules.json are not supported",
            f"supported is {', '.join(STEPS)}, in this order",
        )
    return _pooling(folder / modules[1]["path"] / "config.json", width), "Normalize" in names


def _pooling(path: Path, width: int) -> Pooling:
    config = _read(path)
    if config.get("include_prompt") is False:
        raise UnsupportedModel("pooling that leaves out the prompt is not supported", "choose another model")
    modes = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    if isinstance(config.get("pooling_mode"), str):  # how newer versions write it
        modes.append(f"pooling_mode_{config['pooling_mode']}")
        modes = [{"pooling_mode_cls": "pooling_mode_cls_token", "pooling_mode_mean": "pooling_mode_mean_tokens"}.get(
            mode, mode) for mode in modes]  # fmt: skip
    unknown = [mode for mode in modes if mode not in POOLING_MODES]
    if unknown or len(modes) != 1:
        raise UnsupportedModel(
            f"pooling by {' and '.join(unknown or modes) or 'nothing'} is not supported",
            f"supported is one of {', '.join(POOLING_MODES)}",
        )
    if config.get("word_embedding_dimension", width) != width:
        raise SourceError(f"{path} is made for another width than the model's {width}", "get the folder again")
    return POOLING_MODES[modes[0]]


def _max_length(folder: Path, config: Mapping[str, Any], plan: EncoderPlan) -> int:
    """Tokens of one sequence: the recipe's limit or sentence-transformers', within tokenizer and positions."""
    positions = int(config["max_position_embeddings"])
    if config["model_type"] in OFFSET_TYPES:
        positions -= int(config.get("pad_token_id") or 0) + 1
    settings = _read(folder / "sentence_bert_config.json", {})
    if settings.get("do_lower_case"):
        raise UnsupportedModel("sentence_bert_config.json lowers the case of its texts, which is not supported")
    tokenizer = _read(folder / "tokenizer_config.json", {})
    stated = plan.max_length or settings.get("max_seq_length") or tokenizer.get("model_max_length") or positions
    return min(int(stated), positions)


def _prompts(folder: Path, plan: EncoderPlan) -> tuple[Mapping[str, str], str | None]:
    settings = _read(folder / "config_sentence_transformers.json", {})
    found = {name: text for name, text in (settings.get("prompts") or {}).items() if text}
    prompts = plan.prompts or found
    default = plan.default_prompt or settings.get("default_prompt_name")
    if default is not None and default not in prompts:
        if (settings.get("prompts") or {}).get(default) == "":
            return prompts, None
        raise SourceError(f"the default prompt {default!r} is not among the prompts", "name one of them")
    return prompts, default


def _read(path: Path, default: Any = None) -> Any:
    if default is not None and not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{path.parent} has no {path.name}", "get the folder again") from None
    except ValueError as error:
        raise SourceError(f"{path} is not valid JSON: {error}", "get the folder again") from None
