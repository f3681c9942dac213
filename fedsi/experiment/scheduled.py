"""The keys ``schedule``, ``warm_up_rounds`` and ``final_fraction`` of server and clients."""

from typing import Literal

from fedsi.schedule import Schedule

ScheduleName = Literal["constant", "warm_up", "cosine", "cooldown"]


def check_schedule(
    section: str, schedule: ScheduleName, warm_up_rounds: int | None, final_fraction: float
) -> None:
    """Refuse keys that the chosen schedule does not use, and one that lacks a key.

    Args:
        section: Of the experiment, ``server`` or ``client``.
        schedule: Its key of that name, and so on.
        warm_up_rounds: None if it is not given.
        final_fraction: 0 if it is not given.

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
            f"{section}.schedule=warm_up needs to know for how long; set {section}.warm_up_rounds"
        )
    if final_fraction and schedule not in {"cosine", "cooldown"}:
        raise ValueError(
            f"{section}.final_fraction has no effect with {section}.schedule={schedule}; set "
            f"{section}.schedule=cosine or cooldown, or leave it out"
        )


def check_rounds(section: str, schedule: Schedule, rounds: int) -> None:
    """Refuse a schedule that has not enough rounds.

    Raises:
        ValueError: It has not.
    """
    if schedule.least_rounds(rounds) > rounds:
        raise ValueError(
            f"{section}.warm_up_rounds ({schedule.warm_up_rounds}) leaves too few of the "
            f"server.rounds ({rounds}) for {section}.schedule={schedule.kind}; lower the one "
            "or raise the other"
        )
