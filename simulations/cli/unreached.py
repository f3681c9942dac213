"""Options ``--set`` that a study's own values leave without effect."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedsi.errors import UserError
from simulations.cli.options import messages

if TYPE_CHECKING:
    from fedsi.experiment import Scalar
    from simulations.studies.axes import Point
    from simulations.studies.study import Study


def tell_unreached(studies: "Sequence[Study]", overrides: list[str]) -> None:
    """Print which arms keep a value of their own for a key that ``--set`` gives to the others.

    A key that every arm sets may be given one of its values, as other keys can depend on it:
    ``--set model.architecture=transformer --set model.positions=rotary``.

    Raises:
        UserError: Another value of such a key, which would have no effect.
    """
    from fedsi.experiment import parse_overrides

    for key, value in parse_overrides(overrides).items():
        if all(any(axis.always_sets(key) for axis in study.axes) for study in studies):
            if value in _values(key, studies):
                continue
            raise UserError(
                f"--set {key} would change nothing, because {key} is varied here; leave it out, or "
                "give the values that are tried"
            )
        arms = ", ".join(dict.fromkeys(_arms_that_set(key, studies)))
        if arms:
            sentence = f"--set {key} does not reach arms with values of their own: {arms}"
            messages().print(sentence, highlight=False, soft_wrap=True)


def _points(studies: "Sequence[Study]") -> "Iterator[Point]":
    for axis in (axis for study in studies for axis in study.axes):
        if not axis.is_range:
            yield from axis.points()


def _values(key: str, studies: "Sequence[Study]") -> list["Scalar"]:
    return [value for point in _points(studies) for name, value in point.changes if name == key]


def _arms_that_set(key: str, studies: "Sequence[Study]") -> "Iterator[str]":
    from simulations.studies.axes import text_of

    for point in _points(studies):
        for name, value in point.changes:
            if name == key:
                yield f"{point.axis}={point.text}" + f" ({text_of(value)})" * (point.axis != key)
