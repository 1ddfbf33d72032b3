"""What a recipe asks of a build before it is published."""

from __future__ import annotations

from collections.abc import Iterator

from edgeai.errors import ValidationFailed
from edgeai.package.manifest import Quality
from edgeai.recipe import Recipe


def require_quality(quality: Quality, recipe: Recipe | None, scheme: str, allowance: float = 0.0) -> None:
    """Raises `ValidationFailed` that lists every threshold of the recipe that the measured quality misses.

    The default for KL holds only where the source's own grid was kept; what a recipe states itself always holds.
    `allowance` is a mean KL that is allowed whatever the recipe says. Comparisons are written so that NaN fails.
    """
    if recipe is None:
        return
    missed = list(_missed(quality, recipe, scheme, allowance))
    if missed:
        raise ValidationFailed(
            f"{recipe.name} {'; it '.join(missed)}. Nothing was published",
            "use more bits, or change the recipe's [quality]",
        )


def _missed(quality: Quality, recipe: Recipe, scheme: str, allowance: float) -> Iterator[str]:
    target = recipe.quality
    stated = scheme == "source" or "max_mean_kl" in target.model_fields_set
    most_kl = max(target.max_mean_kl, allowance)
    if stated and not quality.mean_kl <= most_kl:
        yield f"is {quality.mean_kl} nats per token from its source (the recipe allows max_mean_kl {most_kl})"
    least = target.min_top_token_agreement
    if least is not None and not quality.top_token_agreement >= least:
        yield (
            f"has its source's likeliest token in {quality.top_token_agreement} of all places"
            f" (the recipe allows min_top_token_agreement {least})"
        )
    ratio, most = quality.perplexity / quality.reference_perplexity, target.max_perplexity_ratio
    if most is not None and not ratio <= most:
        yield f"has {ratio:.4g} times its source's perplexity (the recipe allows max_perplexity_ratio {most})"
