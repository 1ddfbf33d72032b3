"""Base of what clients send."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ApiModel(BaseModel):
    """No silent conversions, so that "hot" and "0.7" are no temperatures; fields that are not known are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)
