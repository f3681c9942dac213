"""Parts of a study's trials, for array jobs that share a folder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from fedsi.errors import UserError
from simulations.studies.study import Study, Trial


@dataclass(frozen=True)
class StudyPart:
    """Every ``parts``-th trial of a study, from the ``number``-th on, counted from 1."""

    number: int
    parts: int

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Parse ``I/N``.

        Raises:
            UserError: It is not that, or I is not among 1 to N.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"--part takes I/N with I from 1 to N, such as 1/8, not {text!r}")
        return cls(int(found[1]), int(found[2]))

    def trials(self, study: Study) -> Sequence[Trial]:
        """Return the trials of this part.

        Raises:
            UserError: The study decides on its trials as it goes on, or has too few.
        """
        if study.design == "halving":
            raise UserError(
                "a study with design = halving has no parts, because its later trials depend on "
                "the results of the earlier ones; leave out --part"
            )
        trials = study.trials()
        if self.number > len(trials):
            raise UserError(
                f"part {self} is empty, because the study has {len(trials)} trials; use at most "
                f"{len(trials)} parts"
            )
        return trials[self.number - 1 :: self.parts]

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"
