"""Continuation of a run beyond its last round, or beyond the condition that ended it.

A run may be continued if its rounds would have been the same in a run planned longer from the
beginning. Otherwise it is refused, with the key that its rounds depend on.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.experiment.experiment import ENDING, WAITING
from server.endings import DIVERGENCE, Course, ended_by_course
from server.round_record import RoundRecord

ROUNDS = "server.rounds"
_MAY_CHANGE = (ROUNDS, *ENDING, *WAITING)


def extends(before: Experiment, after: Experiment) -> bool:
    """Whether two experiments differ only in when a run ends."""
    old, new = before.flat(), after.flat()
    different = {key for key in new if new[key] != old[key]}
    return different <= {*_MAY_CHANGE} and not different <= {*WAITING}


def first_difference(
    before: Experiment, after: Experiment, besides: Collection[str] = _MAY_CHANGE
) -> str:
    """Return in words the first key in which two experiments differ.

    Args:
        before: The experiment of a run or a study that has begun.
        after: The one that is to continue it.
        besides: Keys that may differ; by default those that decide when a run ends.
    """
    old, new = before.flat(), after.flat()
    for key in new:
        if new[key] != old[key] and key not in besides:
            return f"{key} is {old[key]} there and {new[key]} here"
    return "it ends otherwise"


def keeps_checkpoint(experiment: Experiment) -> bool:
    """Whether a finished run keeps its checkpoint, so that it can be continued.

    The checkpoint of a private run would reveal what privacy hides: past noise, and who took part.
    """
    return (
        experiment.privacy.mechanism == "none"
        and experiment.client.example_noise_multiplier is None
    )


def check_extension(
    folder: Path, before: Experiment, after: Experiment, records: Sequence[RoundRecord]
) -> None:
    """Refuse to continue a run if the result would differ from a single longer run.

    Args:
        folder: The run's folder.
        before: The experiment of the run so far.
        after: The experiment of the continuation; it ``extends`` the other.
        records: The rounds so far.

    Raises:
        UserError: The rounds would have been different, or no round is left to run.
    """
    done, rounds = records[-1].round if records else 0, after.server.rounds
    if before.privacy.mechanism != "none":
        raise UserError(
            f"the run in {folder} cannot be continued with other keys than planned: the noise "
            f"of privacy.mechanism={before.privacy.mechanism} and its epsilon are those of "
            f"server.rounds={before.server.rounds}; start another run, with --out"
        )
    if not keeps_checkpoint(before) and records and records[-1].ended:
        raise UserError(
            f"the run in {folder} cannot be continued: with client.example_noise_multiplier a "
            "finished run keeps no record of who took part; start another run, with --out"
        )
    if records and records[-1].ended == DIVERGENCE:
        raise UserError(
            f"the run in {folder} diverged in round {done} and cannot be continued; "
            "start another run, with --out"
        )
    if rounds <= done:
        raise UserError(
            f"server.rounds={rounds} leaves nothing to run: the run in {folder} has {done} "
            "rounds; give more, or name another folder with --out for a shorter run"
        )
    for key, old, new in _schedules(before, after, done):
        if old != new:
            raise UserError(
                f"the run in {folder} cannot be continued to {rounds} rounds: with {key} its "
                f"learning rates would have been different from the beginning, because they depend "
                f"on the number of rounds; start another run, with --out"
            )
    _check_not_ended(folder, after, records)


def _check_not_ended(folder: Path, after: Experiment, records: Sequence[RoundRecord]) -> None:
    course = Course()
    for record in (one for one in records if one.round):
        course = course.after(record, after.server)
        ended = ended_by_course(after.server, course, record)
        if ended:
            raise UserError(
                f"with {ended}={after.flat()[ended]} the run in {folder} would have ended after "
                f"round {record.round}, and it has {records[-1].round}; leave that key as it was, "
                "raise it, or set it to none"
            )


def _schedules(
    before: Experiment, after: Experiment, done: int
) -> Iterator[tuple[str, list[float], list[float]]]:
    """Yield each key of a schedule, and the factors of the finished rounds before and after."""
    for section in ("server", "client"):
        courses = [
            getattr(experiment, section).learning_rate_schedule.factors(experiment.server.rounds)
            for experiment in (before, after)
        ]
        old, new = (course[:done].tolist() for course in courses)
        yield f"{section}.schedule={getattr(after, section).schedule}", old, new
