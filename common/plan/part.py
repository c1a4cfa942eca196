"""What every part of a study plan has in common: frozen, strict, closed."""

from pydantic import BaseModel, ConfigDict


class PlanPart(BaseModel):
    """A section of the plan: values of exactly the declared type, no unknown key, no change after reading."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
