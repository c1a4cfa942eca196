"""What every part of a study plan has in common: frozen, strict, closed."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class PlanPart(BaseModel):
    """A section of the plan: values of exactly the declared type, no unknown key, no change after reading.

    ``LATER_KEYS``: keys added after the first plans were signed. Where one holds its default it is left out of the
    canonical form, so that a plan signed before it existed keeps its digest, and a cache made for it opens.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
    LATER_KEYS: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = serialise(self)
        for key in self.LATER_KEYS:
            if getattr(self, key) == type(self).model_fields[key].default:
                document.pop(key, None)
        return document
