"""Checks of the keys that set a schedule of the learning rate, of server and clients."""

from typing import Literal

from fedsi.schedule import Schedule

ScheduleName = Literal["constant", "warm_up", "cosine", "cooldown"]


def check_schedule(
    section: str, schedule: ScheduleName, warm_up_rounds: int | None, final_fraction: float
) -> None:
    """Refuse keys that the chosen schedule does not use, and a schedule that lacks a key.

    Args:
        section: The section, ``server`` or ``client``.
        schedule: The value of its key ``schedule``.
        warm_up_rounds: The value of its key ``warm_up_rounds``; None if it is not given.
        final_fraction: The value of its key ``final_fraction``; 0 if it is not given.

    Raises:
        ValueError: A key has no effect, or is missing.
    """
    if warm_up_rounds is not None and schedule == "constant":
        raise ValueError(
            f"{section}.warm_up_rounds has no effect with {section}.schedule=constant; set "
            f"{section}.schedule=warm_up, cosine or cooldown, or leave it out"
        )
    if warm_up_rounds is None and schedule == "warm_up":
        raise ValueError(
            f"{section}.schedule=warm_up needs the number of rounds; set {section}.warm_up_rounds"
        )
    if final_fraction and schedule not in {"cosine", "cooldown"}:
        raise ValueError(
            f"{section}.final_fraction has no effect with {section}.schedule={schedule}; set "
            f"{section}.schedule=cosine or cooldown, or leave it out"
        )


def check_rounds(section: str, schedule: Schedule, rounds: int) -> None:
    """Refuse a schedule that needs more rounds than there are.

    Raises:
        ValueError: There are too few rounds.
    """
    if schedule.least_rounds(rounds) > rounds:
        raise ValueError(
            f"{section}.warm_up_rounds ({schedule.warm_up_rounds}) leaves too few of the "
            f"server.rounds ({rounds}) for {section}.schedule={schedule.kind}; lower the one "
            "or raise the other"
        )
