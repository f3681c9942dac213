"""Checks of the keys that set a schedule of the learning rate, of server and clients."""

from typing import Literal

from fedsi.schedule import Schedule

ScheduleName = Literal["constant", "warm_up", "cosine", "cooldown"]


def check_schedule(section: str, schedule: ScheduleName, warm_up_rounds: int | None) -> None:
    """Refuse a schedule that lacks a key.

    Args:
        section: The section, ``server`` or ``client``.
        schedule: The value of its key ``schedule``.
        warm_up_rounds: The value of its key ``warm_up_rounds``; None if it is not given.

    Raises:
        ValueError: The warm-up's rounds are missing.
    """
    if warm_up_rounds is None and schedule == "warm_up":
        raise ValueError(
            f"{section}.schedule=warm_up needs the number of rounds; set {section}.warm_up_rounds"
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
