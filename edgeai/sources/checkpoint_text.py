"""The language model inside a checkpoint: its configuration and tensor names in the form of a text-only model.

Checkpoints that also see or hear keep the configuration of their language model under `text_config`, and its tensors
behind a prefix that depends on the version of transformers that wrote them. What belongs to their other parts is left
out, by the prefixes listed here; anything else is presented, so that nothing that belongs to the text is lost silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgeai.errors import SourceError
from edgeai.sources.checkpoint_files import CONFIG, INCOMPLETE

# Keys beside `text_config` that hold for the language model too, unless it says otherwise.
SHARED_KEYS = ("quantization_config", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
# The model_type of the language model, where `text_config` leaves it out.
TEXT_TYPES = {"gemma3": "gemma3_text"}

TEXT_PREFIXES = (
    ("language_model.model.", "model."),
    ("model.language_model.", "model."),
    ("language_model.lm_head.", "lm_head."),
)
OTHER_PARTS = (
    "vision_tower.",
    "vision_model.",
    "visual.",
    "multi_modal_projector.",
    "audio_tower.",
    "model.vision_tower.",
    "model.vision_model.",
    "model.visual.",
    "model.multi_modal_projector.",
    "model.audio_tower.",
)
BUFFERS = (".rotary_emb.inv_freq",)  # computed from the configuration; old checkpoints carry them


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the language model. Raises `SourceError` when it does not say what kind of model it is."""
    part = config.get("text_config")
    if isinstance(part, Mapping):
        shared = {key: config[key] for key in SHARED_KEYS if key in config}
        outer = str(config.get("model_type", ""))
        config = {"model_type": TEXT_TYPES.get(outer, outer), **shared, **part}
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise SourceError(f"{CONFIG}: model_type is missing", INCOMPLETE)
    return dict(config)


def text_names(stored: Iterable[str], *, multimodal: bool) -> dict[str, str]:
    """The stored name of each tensor of the language model, by the name that a text-only checkpoint gives it."""
    names: dict[str, str] = {}
    for name in stored:
        if name.endswith(BUFFERS) or (multimodal and name.startswith(OTHER_PARTS)):
            continue
        known = _text_name(name) if multimodal else name
        if known in names:
            raise SourceError(f"tensors {names[known]!r} and {name!r} both are {known!r}", INCOMPLETE)
        names[known] = name
    return names if any(name.startswith("model.") for name in names) else _with_prefix(names)


def _text_name(name: str) -> str:
    for prefix, plain in TEXT_PREFIXES:
        if name.startswith(prefix):
            return plain + name.removeprefix(prefix)
    return name


def _with_prefix(names: Mapping[str, str]) -> dict[str, str]:
    """A checkpoint of the bare decoder, saved without the model around it, lacks the prefix that this would add."""
    return {name if name.startswith("lm_head.") else f"model.{name}": stored for name, stored in names.items()}
