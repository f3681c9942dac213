"""The table of feed-forward parts, ``model.feedforward``.

Modules are named, not imported, so that an experiment can be validated without loading PyTorch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedsi.tables import Table, load

if TYPE_CHECKING:
    from fedsi.experiment.model import ModelSettings
    from fedsi.models.feedforward.part import FeedForwardPart, Function

GROUP = 16
"""Neurons of a group, which are active together."""


@dataclass(frozen=True)
class FeedForward:
    """A kind of feed-forward part."""

    part: str
    """Import path of its ``FeedForwardPart``."""
    label: str
    """Its name in reports."""
    colour: str
    """The colour of its lines in figures."""
    one: str | None = None
    """Import path of the same function of one token, ``[1, 1, embedding]``, without client axis and
    without gradients, that reads only the parameters that it needs; None if that is all of them."""
    keys: frozenset[str] = frozenset()
    """The keys ``model.*`` that it uses and others do not."""
    activations: tuple[str, ...] = ("relu", "gelu")
    """Values of ``model.activation`` that it supports."""
    check: "Callable[[ModelSettings], None] | None" = None
    """Raises ``ValueError`` if the settings contradict each other."""


def check_groups(settings: "ModelSettings") -> None:
    """Refuse feed-forward parts that have no whole groups, or none active."""
    size, share = settings.feedforward_size, settings.active_share
    if size % GROUP:
        raise ValueError(
            f"model.feedforward=top_k has groups of {GROUP} neurons, which do not divide "
            f"model.feedforward_size ({size}); set model.feedforward_size="
            f"{-(-size // GROUP) * GROUP}"
        )
    if size // GROUP * share < 1:
        raise ValueError(
            f"model.active_share = {share} of the {size // GROUP} groups that "
            f"model.feedforward_size ({size}) has is less than one group; raise one of them"
        )


def check_experts(settings: "ModelSettings") -> None:
    """Refuse a mixture that has no choice, or that chooses more experts than it has."""
    if settings.experts < 2:
        raise ValueError(
            "model.experts=1 leaves the router no choice; set model.experts to 2 or more, or "
            "model.feedforward=dense"
        )


FEEDFORWARDS: Table[FeedForward] = Table(
    "model.feedforward",
    "fedsi.models.feedforward.table:FeedForward",
    "FEEDFORWARD",
    {
        "dense": FeedForward(
            part="fedsi.models.feedforward.dense:PART",
            label="dense",
            colour="#b8860b",
            activations=("relu", "gelu", "geglu"),
        ),
        "top_k": FeedForward(
            part="fedsi.models.feedforward.top_k:PART",
            label="top k",
            colour="#0a7f6e",
            one="fedsi.kernels.cpu.active_rows:active_feedforward",
            keys=frozenset({"active_share"}),
            check=check_groups,
        ),
        "moe": FeedForward(
            part="fedsi.models.feedforward.moe:PART",
            label="mixture of experts",
            colour="#1f5fa8",
            one="fedsi.models.feedforward.moe:one_token",
            keys=frozenset({"experts", "experts_per_token", "balance"}),
            check=check_experts,
        ),
    },
)


def part_of(settings: "ModelSettings") -> "FeedForwardPart":
    """Return the feed-forward part that the settings choose."""
    part: FeedForwardPart = load(FEEDFORWARDS[settings.feedforward].part)
    return part


def function_of(settings: "ModelSettings", *, one: bool) -> "Function":
    """Return the function of the part that the settings choose.

    Args:
        settings: The model's.
        one: Whether it is called for one token without gradients, as after each key.
    """
    quick = FEEDFORWARDS[settings.feedforward].one if one else None
    function: Function = load(quick) if quick else part_of(settings).run
    return function


def keys_of_parts() -> frozenset[str]:
    """Return the keys that some feed-forward part uses and others do not."""
    return frozenset().union(*(FEEDFORWARDS[name].keys for name in FEEDFORWARDS))
