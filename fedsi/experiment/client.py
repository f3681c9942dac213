"""The keys ``client.*``: local training."""

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, Strict, model_validator

from fedsi.experiment.effects import refuse_unfitting
from fedsi.experiment.field_types import (
    Count,
    EntryOf,
    Fraction,
    Name,
    NonNegativeNumber,
    OptionalCount,
    OptionalNonNegative,
    OptionalNumber,
    PositiveNumber,
    Settings,
)
from fedsi.experiment.schedule_checks import ScheduleName, check_schedule
from fedsi.learning.optimizers.table import OPTIMIZERS
from fedsi.schedule import Schedule
from fedsi.tables import refuse_without_effect

UNDECIDED = frozenset({"auto", "fastest"})
"""Values of ``client.products`` that leave the choice to the start of a run."""


class ClientSettings(Settings):
    """Local training on one client's examples."""

    optimizer: Annotated[Name, EntryOf(OPTIMIZERS)] = "sgd"
    """Local optimizer: plain SGD; AdamW; or Muon, which orthogonalises the steps of hidden matrices
    and leaves the rest to AdamW. Moments restart for each client in each round."""
    learning_rate: PositiveNumber = 1.0
    """Step size. That of AdamW and Muon is usually near 0.001."""
    depth_rule: OptionalCount = None
    """Blocks of the model that ``client.learning_rate`` is stated for: a model with another number
    ``model.layers`` trains at learning_rate * (layers / depth_rule)^-1.5 (arXiv 2305.07810). None
    for the same rate at every depth."""
    schedule: ScheduleName = "constant"
    """Schedule of the learning rate over the rounds, as in ``server.schedule``; within a round it
    is constant."""
    warm_up_rounds: OptionalCount = None
    """Rounds over which the learning rate rises (warm_up, cosine, cooldown); none for no
    warm-up."""
    final_fraction: Annotated[FiniteFloat, Strict(), Field(ge=0, le=1)] = 0.0
    """Share of the learning rate in the last round (cosine, cooldown)."""
    momentum: Annotated[FiniteFloat, Strict(), Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment, or of Muon's momentum (adamw and muon)."""
    second_moment_decay: Annotated[FiniteFloat, Strict(), Field(ge=0, lt=1)] = 0.999
    """Decay of the second moment (adamw and muon)."""
    adaptivity: Annotated[FiniteFloat, Strict(), Field(ge=1e-20)] = 1e-8
    """Added to the root of the second moment (adamw and muon); epsilon in the literature."""
    batch_size: Count = 16
    """Examples in a batch; the last batch of an epoch may be smaller."""
    epochs: Count = 1
    """Passes over the client's examples."""
    max_steps: OptionalCount = None
    """Most steps in a round; none for no limit."""
    weight_decay: NonNegativeNumber = 0.0
    """Each step first multiplies the parameters by 1 - learning_rate * weight_decay. The decay is
    decoupled: AdamW's moments do not include it."""
    gradient_clip: OptionalNumber = None
    """Largest L2 norm of one step's gradient; none for no clipping."""
    relative_clip: OptionalNumber = None
    """Clips the gradient to relative_clip * sqrt(2 * weight_decay / learning_rate) * ||parameters||
    (sgd); for scale-invariant models (2 in arXiv 2202.00980). None for no clipping."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the factors of matrix products: float32, or bfloat16 if the processor supports
    it. Sums, parameters and updates are float32."""
    products: Literal["auto", "fastest", "own", "torch"] = "auto"
    """Matrix products of the gradients by hand: fedsi's own tiles, which need AVX-512; PyTorch's;
    own where the processor has AVX-512 and PyTorch's elsewhere (auto); or the faster ones in a
    measurement on this machine (fastest). A run decides when it starts and records own or torch."""
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    """Device that trains the clients: the processor, or a GPU (vectorised)."""
    step: Literal["one_by_one", "vectorised"] = "one_by_one"
    """How clients are trained: one after another, which is fastest on a CPU, or many at once, which
    fills a GPU."""
    lanes: Count = 32
    """Clients that a GPU trains at once (vectorised); a processor trains one. Their parameters and
    gradients must fit in memory."""
    example_noise_multiplier: OptionalNonNegative = None
    """Noise multiplier of DP-SGD on the client, which protects single examples even from the
    server; none for ordinary SGD."""
    example_clip_norm: PositiveNumber = 1.0
    """Largest L2 norm of one example's gradient (DP-SGD)."""
    example_delta: Fraction = 1e-5
    """Probability that epsilon does not cover (DP-SGD)."""

    @property
    def learning_rate_schedule(self) -> Schedule:
        """The factor of the learning rate in each round."""
        return Schedule(self.schedule, self.warm_up_rounds or 0, self.final_fraction)

    @model_validator(mode="after")
    def _schedule_has_its_keys(self) -> Self:
        refuse_unfitting(self, "client")
        check_schedule("client", self.schedule, self.warm_up_rounds)
        return self

    @model_validator(mode="after")
    def _the_optimizer_takes_them(self) -> Self:
        others = {key for name in OPTIMIZERS for key in OPTIMIZERS[name].keys}
        used = type(self).model_fields.keys() - others | OPTIMIZERS[self.optimizer].keys
        refuse_without_effect(self, "client", used, "optimizer")
        return self

    @model_validator(mode="after")
    def _weight_decay_leaves_something(self) -> Self:
        # The schedule never raises the learning rate above this.
        if self.learning_rate * self.weight_decay >= 1:
            raise ValueError(
                f"client.weight_decay = {self.weight_decay} times client.learning_rate = "
                f"{self.learning_rate} leaves nothing of the parameters; their product must be "
                "less than 1"
            )
        return self

    @model_validator(mode="after")
    def _the_step_takes_them(self) -> Self:
        if self.step == "one_by_one":
            if self.device != "cpu":
                raise ValueError(
                    f"client.device={self.device} trains many clients at once; set "
                    "client.step=vectorised"
                )
            refuse_without_effect(
                self, "client", type(self).model_fields.keys() - {"lanes"}, "step"
            )
        elif self.example_noise_multiplier is not None:
            raise ValueError(
                "client.step=vectorised does not go with client.example_noise_multiplier, which "
                "computes the gradients of a client's examples at once; leave client.step out"
            )
        elif self.precision != "float32":
            raise ValueError(
                f"client.precision={self.precision} is one of client.step=one_by_one; leave one of "
                "them out"
            )
        else:
            refuse_without_effect(
                self, "client", type(self).model_fields.keys() - {"products"}, "step"
            )
        return self

    @model_validator(mode="after")
    def _bfloat16_has_own_products(self) -> Self:
        if self.precision == "bfloat16" and self.products == "torch":
            raise ValueError(
                "client.precision=bfloat16 has products of fedsi's own only, and client.products="
                "torch asks for PyTorch's; leave one of them out"
            )
        return self

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
