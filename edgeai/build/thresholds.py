"""What a recipe asks of a build before it is published."""

from __future__ import annotations

from edgeai.errors import ValidationFailed
from edgeai.package.manifest import Quality
from edgeai.recipe import Recipe


def require_quality(quality: Quality, recipe: Recipe | None, scheme: str) -> None:
    """Raises `ValidationFailed` that lists every threshold of the recipe that the measured quality misses.

    The default for KL holds only where the source's own grid was kept; what a recipe states itself always holds.
    Comparisons are written so that NaN fails.
    """
    if recipe is None:
        return
    missed = list(_missed(quality, recipe, scheme))
    if missed:
        raise ValidationFailed(
            f"{recipe.name}: {'; '.join(missed)}. Nothing was published",
            "use more bits, or change the recipe's [quality]",
        )


def _missed(quality: Quality, recipe: Recipe, scheme: str) -> list[str]:
    target, missed = recipe.quality, []
    stated = scheme == "source" or "max_mean_kl" in target.model_fields_set
    if stated and not quality.mean_kl <= target.max_mean_kl:
        missed.append(
            f"{quality.mean_kl} nats per token from its source, the recipe allows max_mean_kl = {target.max_mean_kl}"
        )
    agreement = target.min_top_token_agreement
    if agreement is not None and not quality.top_token_agreement >= agreement:
        missed.append(
            f"{quality.top_token_agreement} of the likeliest tokens are the source's, the recipe wants"
            f" min_top_token_agreement = {agreement}"
        )
    ratio = target.max_perplexity_ratio
    measured = quality.perplexity / quality.reference_perplexity
    if ratio is not None and not measured <= ratio:
        missed.append(f"{measured:.4g} times its source's perplexity, the recipe allows max_perplexity_ratio = {ratio}")
    return missed
