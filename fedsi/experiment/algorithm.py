"""The keys ``algorithm.*``: what clients and the server do with the model."""

from typing import Annotated

from pydantic import AfterValidator, Field

from fedsi.errors import UserError
from fedsi.experiment.field_types import Name, Settings
from fedsi.learning.algorithms.table import ALGORITHMS


def _known(name: str) -> str:
    """Refuse a name that no algorithm has."""
    try:
        return ALGORITHMS.known(name)
    except UserError as error:
        raise ValueError(str(error)) from None


class AlgorithmSettings(Settings):
    """What clients and the server do with the model."""

    name: Annotated[
        Name,
        AfterValidator(_known),
        Field(json_schema_extra=lambda schema: schema.update(enum=[*ALGORITHMS])),
    ] = "fed_avg"
    """The algorithm."""
