"""The configuration of an experiment: one immutable object, validated when it is built.

Keys are dotted (``server.cohort_size``) on the command line, nested tables in TOML and attributes
in Python. An absent optional value is ``None`` in Python and the word ``none`` elsewhere, because
TOML has no null.
"""

import difflib
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from fedsi.errors import UserError
from fedsi.privacy.plan import check_pairing
from fedsi.schedule import Schedule
from fedsi.training.limits import largest_contribution

Count = Annotated[PositiveInt, Strict()]
PositiveNumber = Annotated[FiniteFloat, Strict(), Field(gt=0)]
NonNegativeNumber = Annotated[FiniteFloat, Strict(), Field(ge=0)]
Fraction = Annotated[FiniteFloat, Strict(), Field(gt=0, lt=1)]
Probability = Annotated[FiniteFloat, Strict(), Field(gt=0, le=1)]
Name = Annotated[str, Strict(), Field(min_length=1)]
Flag = Annotated[bool, Strict()]
FEWEST_CANARIES = 50
ARCHITECTURES = ("cifg", "si_cifg", "lstm", "transformer", "si_transformer")
"""Those that fedsi brings along."""
Scalar = bool | int | float | str
_NoneAsWord = BeforeValidator(lambda value: None if value == "none" else value)
OptionalCount = Annotated[Count | None, _NoneAsWord]
OptionalNumber = Annotated[PositiveNumber | None, _NoneAsWord]
OptionalFraction = Annotated[Fraction | None, _NoneAsWord]
OptionalNonNegative = Annotated[NonNegativeNumber | None, _NoneAsWord]
OptionalName = Annotated[Name | None, _NoneAsWord]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataSettings(_Settings):
    """Which texts, and how they become sequences of word ids."""

    corpus: Name = "pydocs"
    """``pydocs``, ``synthetic``, or the path of a file or folder in any of the known formats."""
    format: Name = "auto"
    """The format of the corpus; auto goes by the path."""
    user_column: OptionalName = None
    """The column that names the client a row belongs to; none for the format's usual ones."""
    text_column: OptionalName = None
    """The column or feature with the text, one example a row; none for the usual ones."""
    label_column: OptionalName = None
    """The column or feature that ``partition = "dirichlet"`` goes by; none for the group."""
    split: OptionalName = None
    """The corpus's own split to use; none for all of its rows."""
    heldout_split: OptionalName = None
    """The corpus's own split to evaluate on; none to hold out by ``heldout_by``."""
    heldout_by: Literal["groups", "clients", "sentences"] = "groups"
    """What is held out: whole groups (clients if there is but one group), clients, or sentences."""
    heldout_fraction: Fraction = 0.1
    """Share of the clients, or of each client's sentences, that is never trained on."""
    group_separator: OptionalName = None
    """A client's group is its id up to this; none for the corpus's own groups."""
    words: Literal["letters", "punctuation", "spaces"] = "letters"
    """Runs of letters; punctuation and numbers too; or whatever white space separates, for text
    that was cut into tokens before."""
    vocabulary: Name = "count"
    """The most frequent words (``count``), those that most clients use (``users``), byte pairs
    (``bpe``), or the path of a word list or a tokenizer.json."""
    vocabulary_size: Count = 4000
    """Words that have an id of their own; four special tokens are added."""
    sequence_length: Count = 20
    """Words kept of each example."""
    max_examples_per_client: OptionalCount = 256
    """Examples of a client used in one round, drawn anew each round; none for all."""
    partition: Literal["natural", "iid", "dirichlet", "power_law"] = "natural"
    """Whose the training rows are: the corpus's clients', or clients' they are dealt to anew."""
    partition_clients: OptionalCount = None
    """Clients to deal to; none for as many training clients as the corpus has."""
    partition_concentration: PositiveNumber = 0.3
    """Of the Dirichlet distribution of each label over clients; small is heterogeneous."""
    partition_exponent: PositiveNumber = 1.0
    """Of the power law of client sizes."""
    population: Count = 1000
    """Number of clients of the synthetic corpus."""
    population_seed: Annotated[int, Strict(), Field(ge=0, lt=2**63)] = 0
    """Seed of the synthetic corpus and of partitions; experiments of all seeds share it."""
    topic_concentration: PositiveNumber = 0.3
    """Of the Dirichlet distribution of a synthetic client's topics; small is heterogeneous."""
    median_examples: PositiveNumber = 40
    """Median of the log-normal number of examples of a synthetic client."""
    examples_sigma: NonNegativeNumber = 0.7
    """Standard deviation of the logarithm of that number."""

    @model_validator(mode="after")
    def _heldout_split_differs(self) -> Self:
        if self.heldout_split is not None and self.heldout_split == self.split:
            raise ValueError(
                f"data.heldout_split = {self.heldout_split!r} is also data.split; a split cannot "
                "be trained on and held out"
            )
        return self


def _check_architecture(name: str) -> str:
    """Refuse what is neither a built-in architecture nor an import path."""
    module, colon, factory = name.partition(":")
    if module == "__main__" and colon:
        raise ValueError(
            f"model.architecture = {name!r} names the script that is running, which other "
            "processes cannot import; put the factory into a file of its own"
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


class ModelSettings(_Settings):
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
    layers: Count = 2
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


class ClientSettings(_Settings):
    """Local training: plain SGD on one client's examples."""

    learning_rate: PositiveNumber = 1.0
    """Step size of the client's SGD."""
    batch_size: Count = 16
    """Examples in a batch; the last batch of an epoch may be smaller."""
    epochs: Count = 1
    """Passes over the client's examples."""
    max_steps: OptionalCount = None
    """At most this many SGD steps in a round; none for no cap."""
    weight_decay: NonNegativeNumber = 0.0
    """Each step first multiplies the parameters by 1 - learning_rate * weight_decay."""
    gradient_clip: OptionalNumber = None
    """Largest L2 norm of one step's gradient; none for no clipping."""
    relative_clip: OptionalNumber = None
    """Largest L2 norm of one step's gradient, over sqrt(2 weight_decay / learning_rate) times that
    of the parameters; for scale-invariant models (2 in arXiv 2202.00980). None for no clipping."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What products multiply: float32 numbers, or bfloat16 ones where the processor can; sums,
    parameters and updates are float32."""
    example_noise_multiplier: OptionalNonNegative = None
    """Noise of DP-SGD on the device, which protects single examples even from the server; none for
    ordinary SGD."""
    example_clip_norm: PositiveNumber = 1.0
    """Largest L2 norm of one example's gradient in DP-SGD."""
    example_delta: Fraction = 1e-5
    """The probability that epsilon of DP-SGD does not cover."""

    @model_validator(mode="after")
    def _one_way_of_clipping(self) -> Self:
        given = [key for key in ("gradient_clip", "relative_clip") if getattr(self, key)]
        if self.example_noise_multiplier is not None and given:
            raise ValueError(
                f"client.{given[0]} has no effect with client.example_noise_multiplier, which "
                "clips each example's gradient; leave it out"
            )
        if len(given) > 1:
            raise ValueError(
                "client.gradient_clip and client.relative_clip both clip a step's gradient; leave "
                "one of them out"
            )
        if self.relative_clip is not None and not self.weight_decay:
            raise ValueError(
                "client.relative_clip clips in proportion to the root of client.weight_decay, "
                "which is 0; set a weight decay or leave the relative clip out"
            )
        return self


class DeviceSettings(_Settings):
    """When the clients' devices can be reached, and which of them report in time."""

    availability: Literal["always", "trace", "diurnal"] = "always"
    """Which clients can be drawn: all, those of a recorded trace, or a daily rhythm of each."""
    trace: OptionalName = None
    """Path of a CSV file ``client,start,end``: when each client is available, in seconds."""
    round_seconds: PositiveNumber = 60.0
    """Simulated seconds between the starts of two rounds; the first starts at 0."""
    lowest_availability: Probability = 0.1
    """Probability that a client is available at the worst time of its day (diurnal)."""
    highest_availability: Probability = 0.9
    """Probability that a client is available at the best time of its day (diurnal)."""
    over_selection: Annotated[FiniteFloat, Strict(), Field(ge=1)] = 1.0
    """Clients drawn for each one needed; the first ``server.cohort_size`` that report are kept."""
    dropout: Annotated[FiniteFloat, Strict(), Field(ge=0, lt=1)] = 0.0
    """Probability that a drawn client never reports."""
    speed_sigma: NonNegativeNumber = 0.0
    """Spread of the devices' durations: log-normal with this sigma and median 1."""
    timeout: OptionalNumber = None
    """Longest duration waited for, in multiples of the median device's; none for no limit."""

    @model_validator(mode="after")
    def _availability_is_described(self) -> Self:
        if self.availability == "trace" and self.trace is None:
            raise ValueError(
                "devices.availability=trace needs a trace; name a CSV file with devices.trace"
            )
        if self.availability != "trace" and self.trace is not None:
            raise ValueError(
                f"devices.trace has no effect with devices.availability={self.availability}; "
                "set devices.availability=trace or leave the trace out"
            )
        if self.lowest_availability > self.highest_availability:
            raise ValueError(
                f"devices.lowest_availability ({self.lowest_availability}) is more than "
                f"devices.highest_availability ({self.highest_availability}); lower it"
            )
        return self


class ServerSettings(_Settings):
    """The round loop: cohorts, aggregation, server optimizer, evaluation."""

    rounds: Count = 50
    """Number of rounds."""
    cohort_size: Count = 20
    """Clients of a round; with Poisson sampling the expected number of them."""
    sampling: Literal["uniform", "poisson", "shuffled"] = "uniform"
    """How cohorts are drawn: of fixed size, each client by its own coin, or in shuffled passes."""
    cohort_cap: OptionalCount = None
    """Largest cohort of Poisson sampling; a larger draw is cut at random; none for no cap."""
    min_separation: OptionalCount = None
    """Least rounds from one participation of a client to its next (shuffled); none for 1."""
    averaging: Literal["examples", "uniform"] = "examples"
    """Whether an update weighs as much as its client's examples, or the same as any other."""
    optimizer: Literal["sgd", "sgdm", "adam", "adagrad", "yogi"] = "adam"
    """How the average update moves the global model."""
    learning_rate: PositiveNumber = 0.03
    """Step size of the server optimizer."""
    momentum: Annotated[FiniteFloat, Strict(), Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment (sgdm, adam, yogi; adagrad and sgd have none)."""
    second_moment_decay: Annotated[FiniteFloat, Strict(), Field(ge=0, lt=1)] = 0.99
    """Decay of the second moment (adam, yogi)."""
    adaptivity: PositiveNumber = 1e-5
    """Added to the root of the second moment (adam, adagrad, yogi); tau in the literature."""
    schedule: Literal["constant", "warm_up", "cosine", "cooldown"] = "constant"
    """The course of the learning rate over the rounds: constant after a linear warm-up if there is
    one (``warm_up``), falling along half a cosine, or in a straight line over the last quarter."""
    warm_up_rounds: OptionalCount = None
    """Rounds over which the learning rate rises (warm_up, cosine, cooldown); none for no rise."""
    final_fraction: Annotated[FiniteFloat, Strict(), Field(ge=0, le=1)] = 0.0
    """Share of the learning rate that is left in the last round (cosine, cooldown)."""
    weight_decay: NonNegativeNumber = 0.0
    """Each round first multiplies the global parameters by 1 - that round's learning rate *
    weight_decay, whatever the optimizer (decoupled)."""
    evaluate_every: Count = 10
    """Rounds between two evaluations on held-out clients; the last round is always evaluated."""
    evaluation_clients: Count = 200
    """Held-out clients that are evaluated, always the same ones."""

    @property
    def largest_cohort(self) -> int:
        """The most clients whose updates are ever summed.

        By Bernstein's inequality a Poisson draw exceeds twice its mean plus 40 with a probability
        below 1e-19.
        """
        if self.sampling != "poisson":
            return self.cohort_size
        return min(2 * self.cohort_size + 40, self.cohort_cap or sys.maxsize)

    @property
    def learning_rate_schedule(self) -> Schedule:
        """What the learning rate is multiplied by in each round."""
        return Schedule(self.schedule, self.warm_up_rounds or 0, self.final_fraction)

    def learning_rate_of(self, round_number: int) -> float:
        """Return the learning rate of a round, from 1."""
        return self.learning_rate * self.learning_rate_schedule.factor(round_number, self.rounds)

    @model_validator(mode="after")
    def _schedule_has_its_keys(self) -> Self:
        if self.warm_up_rounds is not None and self.schedule == "constant":
            raise ValueError(
                "server.warm_up_rounds has no effect with server.schedule=constant; set "
                "server.schedule=warm_up, cosine or cooldown, or leave it out"
            )
        if self.warm_up_rounds is None and self.schedule == "warm_up":
            raise ValueError(
                "server.schedule=warm_up needs to know for how long; set server.warm_up_rounds"
            )
        if self.final_fraction and self.schedule not in {"cosine", "cooldown"}:
            raise ValueError(
                f"server.final_fraction has no effect with server.schedule={self.schedule}; set "
                "server.schedule=cosine or cooldown, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _learning_rate_fits_the_rounds(self) -> Self:
        if self.learning_rate_schedule.least_rounds(self.rounds) > self.rounds:
            raise ValueError(
                f"server.warm_up_rounds ({self.warm_up_rounds}) leaves too few of the "
                f"server.rounds ({self.rounds}) for server.schedule={self.schedule}; lower the one "
                "or raise the other"
            )
        if self.learning_rate * self.weight_decay >= 1:
            raise ValueError(
                f"server.weight_decay = {self.weight_decay} times server.learning_rate = "
                f"{self.learning_rate} leaves nothing of the parameters; their product must be "
                "less than 1"
            )
        return self

    @model_validator(mode="after")
    def _sampling_has_its_keys(self) -> Self:
        if self.cohort_cap is not None and self.sampling != "poisson":
            raise ValueError(
                f"server.cohort_cap has no effect with server.sampling={self.sampling}; "
                "set server.sampling=poisson or leave the cap out"
            )
        if self.min_separation is not None and self.sampling != "shuffled":
            raise ValueError(
                f"server.min_separation has no effect with server.sampling={self.sampling}; "
                "set server.sampling=shuffled or leave the separation out"
            )
        return self


class PrivacySettings(_Settings):
    """Differential privacy of a client: its update is clipped, noise is added to the sum."""

    mechanism: Literal["none", "gaussian", "tree", "banded", "blt"] = "none"
    """How noise is added: not at all, anew each round, or correlated over rounds."""
    clipping: Literal["flat", "per_layer", "adaptive"] = "flat"
    """The whole update to ``clip_norm``; each of L parameters to ``clip_norm / sqrt(L)``; or the
    whole update to a norm that follows a quantile of the clients' norms."""
    clip_norm: PositiveNumber = 1.0
    """Largest L2 norm of a client's update; with adaptive clipping that of the first round."""
    clip_quantile: Fraction = 0.5
    """The share of clients that adaptive clipping leaves unclipped."""
    noise_multiplier: OptionalNonNegative = None
    """Standard deviation of the noise on the sum over the clip norm (before the mechanism
    correlates it over rounds); none if ``target_epsilon`` is given."""
    target_epsilon: OptionalNumber = None
    """The epsilon that all rounds may cost; the noise multiplier is computed from it."""
    delta: OptionalFraction = None
    """The probability that epsilon does not cover; none for population^-1.1."""
    epsilon_budget: OptionalNumber = None
    """A run that would exceed it stops before the round that would; none for no budget."""
    population: OptionalCount = None
    """Clients that are accounted for; none for the training clients. More is an extrapolation."""
    cohort_size: OptionalCount = None
    """Cohort that is accounted for, with the noise on the mean kept; none for the simulated one."""
    bands: OptionalCount = None
    """Bands of the banded mechanism; none for the minimum separation."""
    buffers: OptionalCount = None
    """Buffers of BLT; none for as many as gain more than one per cent each."""
    restart_every: OptionalCount = None
    """Rounds after which the tree is completed and a new one begun; none for never."""
    secure_noise: Flag = False
    """Discrete Gaussian noise on the integers of the sum, from the operating system's entropy; such
    a run cannot be repeated bit by bit."""
    canaries: Annotated[int, Strict(), Field(ge=0)] = 0
    """Clients of random updates that are added to audit the privacy of the run; 0 or at least 50,
    of which half take part."""

    @model_validator(mode="after")
    def _canaries_are_enough(self) -> Self:
        if 0 < self.canaries < FEWEST_CANARIES:
            raise ValueError(
                f"privacy.canaries = {self.canaries} are too few to bound anything; use at least "
                f"{FEWEST_CANARIES}, or 0 for no audit"
            )
        return self

    @model_validator(mode="after")
    def _mechanism_has_its_keys(self) -> Self:
        given = [
            name
            for name, field in type(self).model_fields.items()
            if name != "mechanism" and getattr(self, name) != field.default
        ]
        if self.mechanism == "none" and given:
            raise ValueError(
                f"privacy.{given[0]} has no effect with privacy.mechanism=none; choose gaussian, "
                "tree, banded or blt, or leave it out"
            )
        foreign = {"bands": "banded", "buffers": "blt", "restart_every": "tree"}
        for name in given:
            if foreign.get(name, self.mechanism) != self.mechanism:
                raise ValueError(
                    f"privacy.{name} has no effect with privacy.mechanism={self.mechanism}; set "
                    f"privacy.mechanism={foreign[name]} or leave it out"
                )
        return self

    @model_validator(mode="after")
    def _noise_is_described(self) -> Self:
        if self.mechanism == "none":
            return self
        if (self.noise_multiplier is None) == (self.target_epsilon is None):
            raise ValueError(
                f"privacy.mechanism={self.mechanism} needs either privacy.noise_multiplier or "
                "privacy.target_epsilon; set one of the two"
            )
        if self.clipping == "adaptive" and self.mechanism != "gaussian":
            raise ValueError(
                f"privacy.clipping=adaptive with privacy.mechanism={self.mechanism} has no valid "
                "accounting: noise of earlier rounds is scaled by their clip norms; use "
                "privacy.mechanism=gaussian or privacy.clipping=flat"
            )
        if self.secure_noise and self.mechanism != "gaussian":
            raise ValueError(
                "privacy.secure_noise draws integers, which privacy.mechanism="
                f"{self.mechanism} turns into others; use privacy.mechanism=gaussian"
            )
        return self


class Experiment(_Settings):
    """One federated training run, completely described.

    Raises:
        UserError: An unknown key or an impossible value, with its path and what is allowed.
    """

    seed: Annotated[int, Strict(), Field(ge=0, lt=2**63)] = 0
    """Everything random follows from it."""
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    client: ClientSettings = ClientSettings()
    devices: DeviceSettings = DeviceSettings()
    server: ServerSettings = ServerSettings()
    privacy: PrivacySettings = PrivacySettings()

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(_explain(error)) from None

    @model_validator(mode="after")
    def _over_selection_fits_the_sampling(self) -> Self:
        if self.devices.over_selection > 1 and self.server.sampling != "uniform":
            raise ValueError(
                f"devices.over_selection = {self.devices.over_selection} needs cohorts of fixed "
                f"size, which server.sampling={self.server.sampling} does not draw; set "
                "server.sampling=uniform or devices.over_selection=1"
            )
        return self

    @model_validator(mode="after")
    def _learned_positions_reach(self) -> Self:
        needed, rows = self.data.sequence_length, self.model.max_length
        if self.model.positions == "learned" and rows < needed:
            raise ValueError(
                f"model.max_length ({rows}) learned positions are too few for sequences of "
                f"data.sequence_length ({needed}); set model.max_length={needed} or more"
            )
        return self

    @model_validator(mode="after")
    def _precision_is_that_of_gradients_by_hand(self) -> Self:
        cell = self.model.architecture in {"cifg", "si_cifg"}
        by_hand = cell or self.model.is_transformer
        private = self.client.example_noise_multiplier is not None
        if self.client.precision != "float32" and (private or not by_hand):
            raise ValueError(
                f"client.precision={self.client.precision} works with the plain SGD of cifg, "
                "si_cifg, transformer and si_transformer; set client.precision=float32"
            )
        return self

    @model_validator(mode="after")
    def _example_privacy_hides_sizes(self) -> Self:
        private = self.client.example_noise_multiplier is not None
        if private and self.server.averaging != "uniform":
            raise ValueError(
                "client.example_noise_multiplier needs server.averaging=uniform: weights by "
                "examples would tell how many a client has"
            )
        return self

    @model_validator(mode="after")
    def _privacy_can_be_accounted(self) -> Self:
        privacy, server, devices = self.privacy, self.server, self.devices
        if privacy.mechanism == "none":
            return self
        check_pairing(privacy.mechanism, server.sampling)
        if server.averaging != "uniform":
            raise ValueError(
                f"privacy.mechanism={privacy.mechanism} needs server.averaging=uniform: weights "
                "by examples would tell how many a client has"
            )
        amplified = server.sampling != "shuffled"
        chosen = devices.availability != "always" or devices.dropout or devices.timeout
        if amplified and (chosen or devices.over_selection > 1):
            raise ValueError(
                "devices that are not always there, drop out, are waited for or over-selected "
                f"void the amplification that server.sampling={server.sampling} is accounted "
                "with; use server.sampling=shuffled with a correlated mechanism, or leave the "
                "devices settings out"
            )
        limit = largest_contribution(server.largest_cohort + privacy.canaries)
        if privacy.clip_norm > limit:
            raise ValueError(
                f"privacy.clip_norm = {privacy.clip_norm} is more than {limit:g}, the largest that "
                "can be summed exactly in a cohort of this size; lower it"
            )
        return self

    @property
    def examples_per_pass(self) -> int | None:
        """The most examples that a client's pass over its data can use; None for all."""
        steps, cap = self.client.max_steps, self.data.max_examples_per_client
        return min(
            (n for n in (cap, steps and steps * self.client.batch_size) if n is not None),
            default=None,
        )

    @classmethod
    def from_toml(cls, text: str, source: str = "the experiment") -> Self:
        """Parse TOML text.

        Raises:
            UserError: Malformed TOML, an unknown key or an impossible value; ``source`` is named.
        """
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{source} is not valid TOML: {error}") from None
        try:
            return cls(**values)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a TOML file.

        Raises:
            UserError: As ``from_toml``, and for a file that is missing or unreadable.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{path} is not UTF-8 text; an experiment is a TOML file") from None
        except OSError as error:
            raise UserError(f"cannot read the experiment {path}: {error.strerror}") from None
        return cls.from_toml(text, source=str(path))

    def to_toml(self) -> str:
        """Return the experiment as TOML text; ``from_toml`` gives an equal object back."""
        sections = {
            key: {k: _word(v) for k, v in value.items()} if isinstance(value, dict) else value
            for key, value in self.model_dump().items()
        }
        return tomli_w.dumps(sections)

    def flat(self) -> dict[str, Scalar]:
        """Return ``{"server.rounds": 50, ...}``; absent values are the word ``none``."""
        flat: dict[str, Scalar] = {}
        for key, value in self.model_dump().items():
            if isinstance(value, dict):
                flat |= {f"{key}.{k}": _word(v) for k, v in value.items()}
            else:
                flat[key] = value
        return flat

    def updated(self, changes: Mapping[str, Any]) -> "Experiment":
        """Return a copy with the given dotted keys set.

        Raises:
            UserError: An unknown key or an impossible value.
        """
        values = self.model_dump()
        for path, value in changes.items():
            section, _, key = path.rpartition(".")
            if section and not isinstance(values.get(section), dict):
                raise UserError(_unknown_key(path))
            (values[section] if section else values)[key] = value
        return Experiment(**values)


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """Parse ``KEY=VALUE`` words; a value is read as TOML where that works, else as a string.

    Raises:
        UserError: A word without ``=`` or without a key.
    """
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set takes KEY=VALUE, for example server.rounds=10, not {pair!r}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        changes[key.strip()] = value
    return changes


def _word(value: Any) -> Any:
    return "none" if value is None else value


def _known_keys() -> list[str]:
    return sorted(Experiment().flat())


def _unknown_key(path: str) -> str:
    known = _known_keys()
    close = difflib.get_close_matches(path, known, n=1)
    if close:
        return f"there is no key {path}; did you mean {close[0]}?"
    section = path.partition(".")[0]
    siblings = [key for key in known if key.startswith(section + ".")]
    return f"there is no key {path}; allowed are {', '.join(siblings or known)}"


def _explain(error: ValidationError) -> str:
    details = error.errors()
    first = details[0]
    place = _place(first)
    path = ".".join(place)
    if first["type"] == "extra_forbidden":
        sentence = _unknown_key(path)
    elif first["type"] == "value_error":
        sentence = first["msg"].removeprefix("Value error, ")
    else:
        sentence = f"{path} = {first['input']!r} is not allowed: {_lower(first['msg'])}"
    # A union reports each of its members; they are one mistake.
    others = {_place(detail) for detail in details} - {place}
    return sentence + (f" (and {len(others)} more)" if others else "")


_TYPE_TAGS = {
    "constrained-int", "constrained-float", "constrained-str", "none", "int", "float", "str",
}  # fmt: skip


def _place(detail: ErrorDetails) -> tuple[str, ...]:
    """Return the keys that lead to a mistake, without the members of unions."""
    return tuple(str(part) for part in detail["loc"] if part not in _TYPE_TAGS)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
