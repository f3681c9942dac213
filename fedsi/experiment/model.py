"""The keys ``model.*``: the on-device language model."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedsi.experiment.effects import refuse_unfitting
from fedsi.experiment.field_types import (
    Count,
    EntryOf,
    Flag,
    Fraction,
    Name,
    NonNegativeNumber,
    OptionalName,
    PositiveNumber,
    Settings,
)
from fedsi.experiment.model_arguments import Arguments
from fedsi.models.feedforward.table import FEEDFORWARDS, keys_of_parts
from fedsi.models.positions.table import ENCODINGS
from fedsi.models.table import ARCHITECTURES, OF_ALL, architecture_keys, check_settings
from fedsi.tables import refuse_without_effect


class ModelSettings(Settings):
    """The on-device language model."""

    architecture: Annotated[Name, EntryOf(ARCHITECTURES)] = "si_cifg"
    """A recurrent cell, a Transformer, a state space model, or a custom model: the import path of a
    function or class that builds it."""
    arguments: Arguments = Arguments()
    """Keyword arguments of a custom model: ``--set model.arguments.width=32``, or the table
    ``[model.arguments]``."""
    encoder: Annotated[Name, EntryOf(ARCHITECTURES, key="model.encoder")] = "si_cifg"
    """Architecture that encodes the texts of a dual encoder, whose other keys are the encoder's."""
    label_encoder: Literal["shared", "own", "table"] = "shared"
    """Vectors of the labels of a dual encoder: by the encoder of the queries (``shared``), by one
    with parameters of its own (``own``), or one row a label without its text (``table``), which
    makes it a classifier."""
    pooling: Literal["last", "mean"] = "mean"
    """Vector of a text: the mean of the encoder's states, or the last one."""
    temperature: PositiveNumber = 0.05
    """The score of a label is its cosine similarity with the query, divided by the temperature."""
    embedding_size: Count = 64
    """Size of the word vectors; in a Transformer or Mamba also of every layer."""
    hidden_size: Count = 128
    """Size of the recurrent state, or channels inside a block of Mamba (not for Transformers)."""
    projection: Flag = True
    """Whether a dense layer projects the recurrent state to the embedding size before the
    output."""
    recurrent_projection: Flag = False
    """Whether the projection is inside the recurrence, which then uses the projected state."""
    tied_output: Flag = False
    """Whether the output layer uses the embeddings as its weights."""
    embedding_normalisation: Literal["none", "rms"] = "rms"
    """``rms`` divides each word's vector by its root mean square."""
    initialisation: Literal["default", "paper", "mimetic"] = "default"
    """``paper``: embeddings uniform in +-.05, forget bias 0; ``default``: +-.5, forget bias 1;
    ``mimetic``: Mamba begins as attention to equal words, and forgets nothing."""
    convolution: Literal["drawn", "identity"] = "drawn"
    """Whether the convolution of Mamba's blocks begins with random weights or as the identity."""
    state_size: Count = 32
    """Size of the state of each channel of Mamba."""
    layers: Annotated[Count, Field(le=1000)] = 2
    """Blocks of a Transformer or of Mamba."""
    heads: Count = 4
    """Heads per block; in a Transformer they must divide the embedding size, in Mamba the hidden
    size."""
    feedforward: Annotated[Name, EntryOf(FEEDFORWARDS)] = "dense"
    """Feed-forward part of a Transformer's blocks: every neuron for every token (``dense``), a few
    groups of neurons that a router chooses for each token (``top_k``), or one or two experts that
    it chooses (``moe``)."""
    feedforward_size: Count = 256
    """Inner size of a block's feed-forward part; of each expert (moe)."""
    active_share: Fraction = 0.08
    """Share of the groups of neurons that a token uses on average (top_k)."""
    experts: Annotated[Count, Field(le=1000)] = 4
    """Experts of each block (moe)."""
    experts_per_token: Literal[1, 2] = 1
    """Experts that a token uses (moe)."""
    balance: NonNegativeNumber = 0.01
    """Weight of the balance loss, which a client adds to its own loss in training so that its
    tokens use all experts (moe); 0 for none."""
    activation: Literal["relu", "gelu", "geglu"] = "relu"
    """Activation of the feed-forward part; ``geglu`` multiplies a GELU layer by a linear one."""
    norms: Literal["before", "around"] = "before"
    """Layer norms of a Transformer's parts: before each, or also after it (``around``)."""
    positions: Annotated[Name, EntryOf(ENCODINGS)] = "none"
    """Position encoding of a Transformer, in addition to the causal mask."""
    max_length: Count = 20
    """Number of learned positions; initial threshold of FIRE."""
    fire_layers: Literal[1, 2] = 2
    """Hidden layers of FIRE's network."""
    random_start: Flag = False
    """Whether the learned positions of a training example begin at a random row of the table."""
    max_distance: Annotated[Count, Field(le=10**4)] = 3
    """Largest distance that relative positions tell apart."""
    scale_invariance: Literal["none", "cell", "attention", "full"] = "none"
    """Scale-invariant parts of a Transformer's blocks: ``cell`` is layer norms without scale and
    shift and a ReLU feed-forward part, ``attention`` is ReLU instead of softmax attention, ``full``
    is both; none leaves the choice to the architecture."""

    init_from: OptionalName = None
    """Folder of a finished run, or a .safetensors file beside its vocabulary, with the weights that
    the run starts from, word by word; none for random weights."""
    init_sha256: OptionalName = None
    """SHA-256 of that file, set by the run; another file is refused."""

    @property
    def of_encoder(self) -> Self:
        """The settings of a dual encoder's encoder."""
        return self.model_copy(update={"architecture": self.encoder})

    @property
    def longest_sequence(self) -> int | None:
        """The largest number of tokens that a Transformer can read; None for any number."""
        return self.max_length if self.positions == "learned" else None

    @property
    def has_scale_invariant_cell(self) -> bool:
        """Whether a Transformer's layer norms have no scale and shift."""
        return self.architecture == "si_transformer" or self.scale_invariance in {"cell", "full"}

    @property
    def has_scale_invariant_attention(self) -> bool:
        """Whether a Transformer's attention uses ReLU instead of softmax."""
        return self.architecture == "si_transformer" or self.scale_invariance in {
            "attention",
            "full",
        }

    @property
    def is_imported(self) -> bool:
        """Whether the architecture is the import path of a user's factory."""
        return ":" in self.architecture

    @model_validator(mode="after")
    def _hash_has_a_file(self) -> Self:
        if self.init_sha256 is not None and self.init_from is None:
            raise ValueError(
                "model.init_sha256 has no effect without model.init_from; name the file that it is "
                "the hash of, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _the_architecture_takes_them(self) -> Self:
        used = architecture_keys(self.architecture, self.encoder) | OF_ALL
        refuse_without_effect(self, "model", used, "architecture")
        others = keys_of_parts() - FEEDFORWARDS[self.feedforward].keys
        fitting = type(self).model_fields.keys() - others
        refuse_without_effect(self, "model", fitting, "feedforward")
        refuse_unfitting(self, "model")
        check_settings(self)
        return self
