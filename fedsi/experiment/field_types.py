"""Base class and constrained types of an experiment's sections."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PositiveInt,
    Strict,
)
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function

from fedsi.errors import UserError
from fedsi.import_path import EXAMPLE
from fedsi.tables import Table, known_name


def _check_name(name: str) -> str:
    """Refuse text that cannot be a file name."""
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
OptionalSize = Annotated[Annotated[PositiveInt, Strict(), Field(le=10**18)] | None, _NoneAsWord]
OptionalNumber = Annotated[PositiveNumber | None, _NoneAsWord]
OptionalFraction = Annotated[Fraction | None, _NoneAsWord]
OptionalNonNegative = Annotated[NonNegativeNumber | None, _NoneAsWord]
OptionalName = Annotated[Name | None, _NoneAsWord]


@dataclass(frozen=True)
class EntryOf:
    """Marks a key whose value is a name of a table: ``Annotated[Name, EntryOf(TABLE)]``.

    The names are looked up when a value is checked or the keys are listed.
    """

    table: Table[Any]
    besides: tuple[str, ...] = ()
    """Names with a meaning of their own that are not in the table."""
    key: str = ""
    """The key, if the table is another key's too; it then takes no import path."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        own = [EXAMPLE] if self.table.own and not self.key else []
        return {**handler(schema), "enum": [*self.besides, *self.table, *own]}

    def _known(self, name: str) -> str:
        try:
            if self.key:
                return known_name(self.key, [*self.besides, *self.table], name)
            return self.table.known(name, self.besides)
        except UserError as error:
            raise ValueError(str(error)) from None


class Settings(BaseModel):
    """A section of an experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @property
    def import_paths(self) -> dict[str, str]:
        """Import paths of the user's own code, by the keys that name it."""
        return {
            key: getattr(self, key)
            for key, field in type(self).model_fields.items()
            for mark in field.metadata
            if isinstance(mark, EntryOf) and mark.table.is_own(getattr(self, key))
        }
