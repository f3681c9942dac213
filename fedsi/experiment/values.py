"""What all sections of an experiment are made of: immutable settings and constrained values."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, PositiveInt, Strict

Count = Annotated[PositiveInt, Strict()]
PositiveNumber = Annotated[FiniteFloat, Strict(), Field(gt=0)]
NonNegativeNumber = Annotated[FiniteFloat, Strict(), Field(ge=0)]
Fraction = Annotated[FiniteFloat, Strict(), Field(gt=0, lt=1)]
Probability = Annotated[FiniteFloat, Strict(), Field(gt=0, le=1)]
Name = Annotated[str, Strict(), Field(min_length=1)]
Flag = Annotated[bool, Strict()]
Scalar = bool | int | float | str
_NoneAsWord = BeforeValidator(lambda value: None if value == "none" else value)
OptionalCount = Annotated[Count | None, _NoneAsWord]
OptionalNumber = Annotated[PositiveNumber | None, _NoneAsWord]
OptionalFraction = Annotated[Fraction | None, _NoneAsWord]
OptionalNonNegative = Annotated[NonNegativeNumber | None, _NoneAsWord]
OptionalName = Annotated[Name | None, _NoneAsWord]


class Settings(BaseModel):
    """A section of an experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
