"""The table of architectures, ``model.architecture``. A new one is a file and an entry here.

Modules are named, not imported, so that an experiment can be validated without loading PyTorch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedsi.model_objects import shown
from fedsi.models.feedforward.table import FEEDFORWARDS, keys_of_parts
from fedsi.models.positions.table import ENCODINGS
from fedsi.tables import Table

if TYPE_CHECKING:
    from fedsi.experiment.model import ModelSettings
    from fedsi.models.model import Model

RANDOM_START = "random_start"
"""A key that an encoder of another model has no use for."""
BY_HAND = {"precision": "float32", "products": "auto"}
"""Keys ``client.*`` that only gradients by hand use, with the values for others."""
OF_ALL = frozenset({"init_from", "init_sha256"})
"""The keys ``model.*`` that every architecture uses, including custom models."""

_SHARED = {"embedding_size", "tied_output", "embedding_normalisation", "initialisation"}
_RECURRENT = frozenset({*_SHARED, "hidden_size", "projection", "recurrent_projection"})
_TRANSFORMER = frozenset(
    {
        *_SHARED,
        "layers",
        "heads",
        "feedforward",
        "feedforward_size",
        *keys_of_parts(),
        "activation",
        "positions",
        "max_length",
        "fire_layers",
        "norms",
        "random_start",
        "max_distance",
        "scale_invariance",
    }
)
_MAMBA = frozenset({*_SHARED, "hidden_size", "layers", "heads", "state_size", "convolution"})


@dataclass(frozen=True)
class Architecture:
    """A model family."""

    build: str
    """Import path of a function that returns a ``Model`` for settings and vocabulary size, or of a
    user's factory."""
    keys: frozenset[str]
    """The keys ``model.*`` that it uses, apart from ``architecture`` and ``OF_ALL``."""
    label: str
    """Its name in reports."""
    colour: str
    """The colour of its lines in figures."""
    initialisations: tuple[str, ...] = ("default", "paper")
    """Values of ``model.initialisation`` that it supports."""
    check: "Callable[[ModelSettings], None] | None" = None
    """Raises ``ValueError`` if the settings contradict each other."""
    by_hand: str | None = None
    """Import path of the compiled pass with a gradient written by hand; None for autograd."""
    joins: "Callable[[ModelSettings], bool] | None" = None
    """Whether the pass by hand computes the gradients of several batches together; None for no."""
    by_autograd: "Callable[[ModelSettings, int], bool] | None" = None
    """Whether autograd trains a model with these settings and streams of ids, because the pass by
    hand lacks a part of it."""
    penalised: "Callable[[ModelSettings], bool] | None" = None
    """Whether training adds something to the loss of a model with these settings, which it then
    returns as ``features_and_penalty(parameters, inputs, ids)``."""
    takes_ids: bool = False
    """Whether ``build`` takes the number of streams of ids, and features take the ids."""
    ranks_labels: bool = False
    """Whether its outputs are scores of labels: ``build`` takes a ``LabelTokens``."""
    encodes: bool = True
    """Whether it can be the ``model.encoder`` of another one, which uses its keys too."""


def check_recurrent(settings: "ModelSettings") -> None:
    """Refuse contradictions among the settings of a recurrent model."""
    if settings.recurrent_projection and not settings.projection:
        raise ValueError(
            "model.recurrent_projection=true moves the projection into the recurrence, and "
            "model.projection=false has none; set model.projection=true"
        )
    if (
        settings.tied_output
        and not settings.projection
        and settings.embedding_size != settings.hidden_size
    ):
        raise ValueError(
            f"a tied output without projection needs model.hidden_size ({settings.hidden_size}) "
            f"equal to model.embedding_size ({settings.embedding_size}); set model.projection=true"
        )
    if settings.scale_invariance == "attention":
        raise ValueError(
            "model.scale_invariance=attention contradicts model.architecture="
            f"{settings.architecture}, which allows cell, full or none; parts of a Transformer "
            "are chosen with architecture transformer"
        )


def check_transformer(settings: "ModelSettings") -> None:
    """Refuse contradictions among the settings of a Transformer."""
    if settings.architecture == "si_transformer" and settings.scale_invariance not in (
        "none",
        "full",
    ):
        raise ValueError(
            f"model.scale_invariance={settings.scale_invariance} contradicts model.architecture="
            "si_transformer, which allows full or none; parts of a Transformer are chosen with "
            "architecture transformer"
        )
    if settings.embedding_size % settings.heads:
        raise ValueError(
            f"model.heads ({settings.heads}) does not divide model.embedding_size "
            f"({settings.embedding_size}); change one of them"
        )
    size = settings.embedding_size // settings.heads
    if settings.positions == "rotary" and size % 2:
        raise ValueError(
            f"model.positions=rotary rotates pairs and needs an even head size, not {size} "
            "(model.embedding_size / model.heads); change one of them"
        )
    if settings.has_scale_invariant_cell and settings.activation != "relu":
        raise ValueError(
            f"model.activation={settings.activation} is not homogeneous, which a scale-invariant "
            "block needs; set model.activation=relu"
        )
    part = FEEDFORWARDS[settings.feedforward]
    if settings.activation not in part.activations:
        raise ValueError(
            f"model.activation={settings.activation} is not defined for model.feedforward="
            f"{settings.feedforward}, which has {' and '.join(part.activations)}; set one of them"
        )
    if part.check:
        part.check(settings)


def check_dual_encoder(settings: "ModelSettings") -> None:
    """Refuse contradictions among the settings of a dual encoder and those of its encoder."""
    if not ARCHITECTURES[settings.encoder].encodes:
        encoders = ", ".join(name for name in ARCHITECTURES if ARCHITECTURES[name].encodes)
        raise ValueError(
            f"model.encoder={settings.encoder} is no encoder of texts; expected one of {encoders}"
        )
    check_settings(settings.of_encoder)


def check_mamba(settings: "ModelSettings") -> None:
    """Refuse contradictions among the settings of a state space model."""
    if settings.hidden_size % settings.heads:
        raise ValueError(
            f"model.heads ({settings.heads}) does not divide model.hidden_size "
            f"({settings.hidden_size}); change one of them"
        )


def _recurrent(
    label: str, colour: str, *, by_hand: bool = False, more: frozenset[str] = frozenset()
) -> Architecture:
    return Architecture(
        build="fedsi.models.recurrent:Recurrent",
        keys=_RECURRENT | more,
        label=label,
        colour=colour,
        check=check_recurrent,
        by_hand="fedsi.kernels.cpu.recurrent_pass:RecurrentPass" if by_hand else None,
        joins=_always if by_hand else None,
    )


def _is_beyond_the_pass(settings: "ModelSettings", streams: int) -> bool:
    """Whether a Transformer has ids, or a part that its pass by hand does not know."""
    gated, around = settings.activation == "geglu", settings.norms == "around"
    sparse = settings.feedforward != "dense"
    return bool(streams or settings.random_start or gated or around or sparse)


def _always(_settings: "ModelSettings") -> bool:
    return True


def _has_no_bias(settings: "ModelSettings") -> bool:
    """Whether positions do not add to scores: batches share a bias, but not its gradient."""
    return ENCODINGS[settings.positions].bias is None


def _is_balanced(settings: "ModelSettings") -> bool:
    """Whether a Transformer's clients train with a balance loss."""
    return settings.feedforward == "moe" and settings.balance > 0


def _is_encoder_balanced(settings: "ModelSettings") -> bool:
    """Whether clients train the encoder of a dual encoder with a balance loss."""
    return is_penalised(settings.of_encoder)


def _transformer(label: str, colour: str) -> Architecture:
    return Architecture(
        build="fedsi.models.transformer:Transformer",
        keys=_TRANSFORMER,
        label=label,
        colour=colour,
        check=check_transformer,
        by_hand="fedsi.kernels.cpu.transformer_pass:TransformerPass",
        joins=_has_no_bias,
        by_autograd=_is_beyond_the_pass,
        penalised=_is_balanced,
        takes_ids=True,
    )


ARCHITECTURES: Table[Architecture] = Table(
    "model.architecture",
    "fedsi.models.table:Architecture",
    "ARCHITECTURE",
    {
        "cifg": _recurrent("CIFG", "#c8500a", by_hand=True),
        "si_cifg": _recurrent(
            "SI-CIFG", "#0a7f6e", by_hand=True, more=frozenset({"scale_invariance"})
        ),
        "lstm": _recurrent("LSTM", "#7a4fb0"),
        "gru": _recurrent("GRU", "#b03a5b"),
        "transformer": _transformer("Transformer", "#b8860b"),
        "si_transformer": _transformer("SI-Transformer", "#1f5fa8"),
        "mamba": Architecture(
            build="fedsi.models.mamba:Mamba",
            keys=_MAMBA,
            label="Mamba-2",
            colour="#4d6b1f",
            initialisations=("default", "paper", "mimetic"),
            check=check_mamba,
        ),
        "dual_encoder": Architecture(
            build="fedsi.models.dual_encoder:DualEncoder",
            keys=frozenset({"encoder", "label_encoder", "pooling", "temperature"}),
            label="Dual encoder",
            colour="#8a2f8f",
            initialisations=("default", "paper", "mimetic"),
            check=check_dual_encoder,
            penalised=_is_encoder_balanced,
            ranks_labels=True,
            encodes=False,
        ),
    },
    own="a function or class of yours that builds a model",
)


def is_penalised(settings: "ModelSettings") -> bool:
    """Whether training adds something to the loss of a model."""
    penalised = architecture(settings.architecture).penalised
    return penalised is not None and penalised(settings)


def pass_by_hand(model: "Model") -> str | None:
    """Return the import path of the pass that trains a model; None if autograd does."""
    entry = architecture(model.settings.architecture)
    streams = getattr(model, "streams", 0)
    by_autograd = entry.by_autograd and entry.by_autograd(model.settings, streams)
    return None if by_autograd else entry.by_hand


def joins_batches(model: "Model") -> bool:
    """Whether one pass computes the gradients, or the ranks, of several of a model's batches."""
    joins = architecture(model.settings.architecture).joins
    return pass_by_hand(model) is not None and joins is not None and joins(model.settings)


def architecture(name: str) -> Architecture:
    """Return the entry of a name. A user's own model is named by its import path.

    Raises:
        UserError: There is no such architecture.
    """
    if ARCHITECTURES.is_own(name):
        return Architecture(
            build=name, keys=frozenset({"arguments"}), label=shown(name), colour="#333333"
        )
    return ARCHITECTURES[name]


def architecture_keys(name: str, encoder: str) -> frozenset[str]:
    """Return the keys ``model.*`` that an architecture uses, apart from ``OF_ALL`` and its name.

    Args:
        name: The architecture.
        encoder: ``model.encoder``, whose keys a model around an encoder uses too.
    """
    keys = architecture(name).keys
    if "encoder" not in keys or encoder not in ARCHITECTURES:
        return keys
    return keys | (architecture(encoder).keys - {RANDOM_START, "tied_output"})


def check_settings(settings: "ModelSettings") -> None:
    """Refuse an initialisation that the architecture lacks, and contradictory settings.

    Raises:
        ValueError: They do.
    """
    entry = architecture(settings.architecture)
    if settings.initialisation not in entry.initialisations:
        raise ValueError(
            f"model.initialisation={settings.initialisation} is not defined for "
            f"model.architecture={settings.architecture}, which has "
            f"{' and '.join(entry.initialisations)}; set one of them"
        )
    if entry.check:
        entry.check(settings)
