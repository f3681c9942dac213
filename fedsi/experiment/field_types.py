"""What all sections of an experiment are made of: immutable settings and constrained values."""

from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    Strict,
)


def _check_name(name: str) -> str:
    """Refuse text that no file can be called."""
    if "\0" in name:
        raise ValueError(f"{name!r} is not allowed: no name has the character \\0")
    return name


Count = Annotated[PositiveInt, Strict(), Field(le=10**9)]
SpreadOfLogarithm = Annotated[FiniteFloat, Strict(), Field(ge=0, le=10)]
"""Standard deviation of a logarithm; at 10 one value in a thousand is 10^13 times the median."""
PositiveNumber = Annotated[FiniteFloat, Strict(), Field(gt=0)]
NonNegativeNumber = Annotated[FiniteFloat, Strict(), Field(ge=0)]
Fraction = Annotated[FiniteFloat, Strict(), Field(gt=0, lt=1)]
Probability = Annotated[FiniteFloat, Strict(), Field(gt=0, le=1)]
Name = Annotated[str, Strict(), Field(min_length=1, max_length=4096), AfterValidator(_check_name)]
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
