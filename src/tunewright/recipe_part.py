"""What every section of a recipe is made of: strict, frozen, each field documented. `recipe` puts them together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Auto = Literal["auto"]
PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Clash(ValueError):
    """Two settings that can't both hold; `field` is the one to change."""

    def __init__(self, message: str, field: str) -> None:
        self.field = field
        super().__init__(message)


class Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: object, info: ValidationInfo) -> object:
        """A yes would otherwise pass for 1."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError(
                "text or a number; YAML reads yes, no, on and off as true and false, so text goes in quotes"
            )
        return value
