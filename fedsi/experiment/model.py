"""The keys ``model.*``: the on-device language model."""

import sys
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from fedsi.experiment.field_types import Count, Flag, Name, Settings

ARCHITECTURES = ("cifg", "si_cifg", "lstm", "transformer", "si_transformer")
"""Those that fedsi brings along."""


def _check_architecture(name: str) -> str:
    """Refuse what is neither a built-in architecture nor an import path."""
    module, colon, factory = name.partition(":")
    if module == "__main__" and colon:
        raise ValueError(
            f"model.architecture = {name!r} names the script that is running, which other "
            "processes cannot import; put the factory into a file of its own"
        )
    if colon and module.partition(".")[0] in sys.stdlib_module_names:
        raise ValueError(
            f"model.architecture = {name!r} is not allowed: {module} is a module of Python itself, "
            "which has no models; name one of yours, as in 'my_package.my_module:factory'"
        )
    parts = [*module.split("."), factory] if colon else []
    if name not in ARCHITECTURES and not (parts and all(part.isidentifier() for part in parts)):
        *most, last = (repr(known) for known in ARCHITECTURES)
        raise ValueError(
            f"model.architecture = {name!r} is not allowed: it should be {', '.join(most)} or "
            f"{last}, or the import path of a function of yours that builds a model, as in "
            "'my_package.my_module:factory'"
        )
    return name


class ModelSettings(Settings):
    """The on-device language model."""

    architecture: Annotated[Name, AfterValidator(_check_architecture)] = "si_cifg"
    """The recurrent cell, a Transformer, or the import path of a factory of your own,
    ``my_module:factory``."""
    embedding_size: Count = 64
    """Size of a word's vector; in a Transformer that of every layer."""
    hidden_size: Count = 128
    """Size of the recurrent state; Transformers have none."""
    projection: Flag = True
    """Whether a dense layer takes the recurrent state to the embedding size before the output."""
    recurrent_projection: Flag = False
    """Whether the projection is inside the recurrence, which then sees the projected state."""
    tied_output: Flag = False
    """Whether the output layer uses the embeddings as its weights."""
    embedding_normalisation: Literal["none", "rms"] = "rms"
    """``rms`` divides each word's vector by its root mean square."""
    initialisation: Literal["default", "paper"] = "default"
    """``paper``: embeddings uniform in +-.05, forget bias 0; ``default``: +-.5, forget bias 1."""
    layers: Annotated[Count, Field(le=1000)] = 2
    """Blocks of a Transformer."""
    heads: Count = 4
    """Attention heads of a block; they divide the embedding size among them."""
    feedforward_size: Count = 256
    """Size of the inner layer of a block's feed-forward part."""
    activation: Literal["relu", "gelu"] = "relu"
    """Of the feed-forward part."""
    positions: Literal[
        "none", "learned", "sinusoidal", "rotary", "alibi", "t5", "kerple", "fire"
    ] = "none"
    """How a Transformer is told the order of the words, besides the causal mask."""
    max_length: Count = 20
    """Rows of the learned positions; where FIRE's threshold starts."""
    scale_invariance: Literal["none", "cell", "attention", "full"] = "none"
    """What of a Transformer's blocks is made scale-invariant: ``cell`` takes layer norms without
    scale and shift and a ReLU feed-forward part, ``attention`` takes ReLU attention in place of
    softmax, ``full`` both; none for what the architecture's name says."""

    @property
    def is_transformer(self) -> bool:
        """Whether the architecture has blocks of attention."""
        return self.architecture in {"transformer", "si_transformer"}

    @property
    def longest_sequence(self) -> int | None:
        """The most tokens that a Transformer can read; None for any number."""
        return self.max_length if self.positions == "learned" else None

    @property
    def has_scale_invariant_cell(self) -> bool:
        """Whether a Transformer's layer norms have no scale and shift."""
        return self.architecture == "si_transformer" or self.scale_invariance in {"cell", "full"}

    @property
    def has_scale_invariant_attention(self) -> bool:
        """Whether a Transformer's attention is by ReLU in place of softmax."""
        return self.architecture == "si_transformer" or self.scale_invariance in {
            "attention",
            "full",
        }

    @model_validator(mode="after")
    def _parts_are_the_architectures(self) -> Self:
        allowed = {
            "si_cifg": {"none", "cell", "full"},
            "transformer": {"none", "cell", "attention", "full"},
            "si_transformer": {"none", "full"},
        }.get(self.architecture, {"none"})
        if self.scale_invariance not in allowed:
            raise ValueError(
                f"model.scale_invariance={self.scale_invariance} contradicts "
                f"model.architecture={self.architecture}, which takes "
                f"{' or '.join(sorted(allowed))}; the scale-invariant cell is architecture "
                "si_cifg, parts of a Transformer are chosen with architecture transformer"
            )
        if not self.is_transformer and (self.positions != "none" or self.activation != "relu"):
            key = "activation" if self.positions == "none" else "positions"
            raise ValueError(
                f"model.{key}={getattr(self, key)} has no effect with "
                f"model.architecture={self.architecture}, which is no Transformer; leave it out or "
                "set model.architecture=transformer"
            )
        return self

    @model_validator(mode="after")
    def _a_transformer_fits_together(self) -> Self:
        if not self.is_transformer:
            return self
        if self.embedding_size % self.heads:
            raise ValueError(
                f"model.heads ({self.heads}) does not divide model.embedding_size "
                f"({self.embedding_size}); change one of them"
            )
        size = self.embedding_size // self.heads
        if self.positions == "rotary" and size % 2:
            raise ValueError(
                f"model.positions=rotary turns pairs and needs an even head size, not {size} "
                "(model.embedding_size / model.heads); change one of them"
            )
        if self.has_scale_invariant_cell and self.activation != "relu":
            raise ValueError(
                f"model.activation={self.activation} is not homogeneous, which a scale-invariant "
                "block needs; set model.activation=relu"
            )
        if self.recurrent_projection:
            raise ValueError(
                f"model.recurrent_projection has no effect with model.architecture="
                f"{self.architecture}, which is not recurrent; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _recurrent_projection_has_one(self) -> Self:
        if self.recurrent_projection and not self.projection:
            raise ValueError(
                "model.recurrent_projection=true moves the projection into the recurrence, and "
                "model.projection=false has none; set model.projection=true"
            )
        return self

    @property
    def is_imported(self) -> bool:
        """Whether the architecture is the import path of a user's factory."""
        return ":" in self.architecture

    @model_validator(mode="after")
    def _tied_sizes_agree(self) -> Self:
        if (
            not self.is_transformer
            and self.tied_output
            and not self.projection
            and self.embedding_size != self.hidden_size
        ):
            raise ValueError(
                f"a tied output without projection needs model.hidden_size ({self.hidden_size}) "
                f"equal to model.embedding_size ({self.embedding_size}); set model.projection=true"
            )
        return self
