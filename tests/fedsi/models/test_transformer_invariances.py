"""Invariances and degrees of homogeneity of Transformers, in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fedsi.experiment import ModelSettings
from fedsi.models.parameters import Parameters
from fedsi.models.positions.table import ENCODINGS
from fedsi.models.transformer import Transformer

VOCABULARY = 13
LAYERS = 2
SCALES = [1e-2, 0.5, 30.0]
Group = Callable[[str], bool]


def model(**changes: Any) -> Transformer:
    values = {
        "architecture": "si_transformer",
        "embedding_size": 12,
        "heads": 3,
        "layers": LAYERS,
        "feedforward_size": 16,
        **changes,
    }
    return Transformer(ModelSettings(**values), VOCABULARY)


def parameters_of(lm: Transformer) -> Parameters:
    generator = torch.Generator().manual_seed(6)
    flat = torch.randn(lm.layout.size, generator=generator, dtype=torch.float64)
    return lm.layout.views(flat)


IDS = torch.randint(0, VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(1))


def scaled(parameters: Parameters, group: Group, by: float) -> Parameters:
    assert any(group(name) for name in parameters)
    return {name: by * p if group(name) else p for name, p in parameters.items()}


def logits(lm: Transformer, parameters: Parameters) -> Tensor:
    return lm.logits(parameters, lm.features(parameters, IDS))


def change(lm: Transformer, group: Group, by: float) -> float:
    """Relative change of the logits when a group of parameters is scaled."""
    parameters = parameters_of(lm)
    before = logits(lm, parameters)
    after = logits(lm, scaled(parameters, group, by))
    return float((after - before).norm() / before.norm())


def cosine(lm: Transformer, group: Group) -> float:
    """Cosine between a group's parameters and the loss's gradient in them."""
    leaves = {name: p.clone().requires_grad_() for name, p in parameters_of(lm).items()}
    loss = functional.cross_entropy(logits(lm, leaves)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
    chosen = [p for name, p in leaves.items() if group(name)]
    gradients = torch.autograd.grad(loss, chosen)
    one, two = (torch.cat([t.detach().flatten() for t in ts]) for ts in (chosen, gradients))
    return abs(float(functional.cosine_similarity(one, two, dim=0)))


def named(*endings: str) -> Group:
    return lambda name: name.endswith(endings)


QUERIES, KEYS = named("attention.query"), named("attention.key")
STREAM = {"embedding_normalisation": "none"}
PLAIN = {"architecture": "transformer"}

INVARIANT: dict[str, tuple[dict[str, Any], Group]] = {
    "one block's queries": ({}, named("blocks.0.attention.query")),
    "one block's keys": ({}, named("blocks.1.attention.key")),
    "queries, rotary": ({"positions": "rotary"}, QUERIES),
    "keys, learned positions": ({"positions": "learned"}, KEYS),
    "queries, sinusoidal": ({"positions": "sinusoidal"}, QUERIES),
    "queries, norms with scale": ({**PLAIN, "scale_invariance": "attention"}, QUERIES),
    "queries and T5's table": (
        {"positions": "t5"},
        named("attention.query", "positions.table"),
    ),
    "keys and the last layer of FIRE": (
        {"positions": "fire"},
        named("attention.key", "positions.third.weight", "positions.third.bias"),
    ),
    "the stream": (
        STREAM,
        named("embedding", "attention.output", "feedforward.outer"),
    ),
    "the stream by values and inner layers": (
        STREAM,
        named("embedding", "attention.value", "feedforward.inner"),
    ),
    "the stream with learned positions": (
        {**STREAM, "positions": "learned"},
        named("embedding", "positions.table", "attention.output", "feedforward.outer"),
    ),
    "the stream of a plain Transformer with GELU": (
        {**STREAM, **PLAIN, "activation": "gelu", "positions": "rotary"},
        named("embedding", "attention.value", "feedforward.outer"),
    ),
    "embeddings that are normalised": ({}, named("embedding")),
}


@pytest.mark.parametrize("case", INVARIANT)
def test_groups_that_the_output_is_invariant_to(case: str) -> None:
    changes, group = INVARIANT[case]
    lm = model(**changes)
    assert max(change(lm, group, by) for by in SCALES) < 1e-10
    assert cosine(lm, group) < 1e-10


def test_each_head_is_invariant_by_itself() -> None:
    lm = model()
    parameters = parameters_of(lm)
    factors = torch.tensor([0.1, 3.0, 7.0], dtype=torch.float64).repeat_interleave(4)
    other = parameters | {
        name: p * factors for name, p in parameters.items() if QUERIES(name) or KEYS(name)
    }
    torch.testing.assert_close(logits(lm, other), logits(lm, parameters), rtol=0, atol=1e-10)


DEPENDENT: dict[str, tuple[dict[str, Any], Group]] = {
    "queries of softmax attention": (PLAIN, QUERIES),
    "queries of softmax attention in a scale-invariant block": (
        {**PLAIN, "scale_invariance": "cell"},
        QUERIES,
    ),
    "values": ({}, named("attention.value")),
    "outer layers": ({}, named("feedforward.outer")),
    "the stream with inner layers and GELU": (
        {**STREAM, **PLAIN, "activation": "gelu"},
        named("embedding", "attention.output", "feedforward.inner"),
    ),
    "the stream with sinusoids": (
        {**STREAM, "positions": "sinusoidal"},
        named("embedding", "attention.output", "feedforward.outer"),
    ),
    "the stream with a tied output": (
        {**STREAM, "tied_output": True},
        named("embedding", "attention.output", "feedforward.outer"),
    ),
    "T5's table": ({"positions": "t5"}, named("positions.table")),
    "the output": ({}, named("output.weight")),
}


@pytest.mark.parametrize("case", DEPENDENT)
def test_groups_that_the_output_depends_on(case: str) -> None:
    changes, group = DEPENDENT[case]
    lm = model(**changes)
    assert change(lm, group, 30.0) > 1e-2
    assert cosine(lm, group) > 1e-6


@pytest.mark.parametrize("positions", ["alibi", "t5", "kerple", "fire", "relative"])
def test_a_bias_before_the_relu_ends_the_invariance(positions: str) -> None:
    """The logits' change with ten times larger queries, measured."""
    lm = model(positions=positions)
    without = change(model(), QUERIES, 10.0)
    moved = change(lm, QUERIES, 10.0)
    assert without < 1e-10
    assert moved > 0.03
    assert cosine(lm, QUERIES) > 1e-4


@pytest.mark.parametrize("positions", ["alibi", "t5", "kerple", "fire", "relative"])
def test_a_bias_does_not_matter_to_large_queries(positions: str) -> None:
    lm = model(positions=positions)
    parameters = parameters_of(lm)
    large = logits(lm, scaled(parameters, QUERIES, 1e9))
    unbiased = Transformer(lm.settings.model_copy(update={"positions": "none"}), VOCABULARY)
    torch.testing.assert_close(large, logits(unbiased, parameters), rtol=0, atol=1e-5)


@pytest.mark.parametrize("positions", ["t5", "fire"])
def test_only_a_bias_matters_to_small_queries(positions: str) -> None:
    lm = model(positions=positions)
    parameters = parameters_of(lm)
    small, none = (logits(lm, scaled(parameters, QUERIES, by)) for by in (1e-9, 0.0))
    torch.testing.assert_close(small, none, rtol=0, atol=1e-5)


@pytest.mark.parametrize("positions", ["alibi", "kerple"])
def test_biases_that_are_never_positive_hide_the_past_from_small_queries(positions: str) -> None:
    """The bias is 0 for the word itself and below 0 before it, where the ReLU then gives 0."""
    lm = model(positions=positions)
    parameters = scaled(parameters_of(lm), QUERIES, 1e-9)
    other = IDS.clone()
    other[:, :-1] = (IDS[:, :-1] + 1) % VOCABULARY
    last, changed = (lm.features(parameters, ids)[:, -1] for ids in (IDS, other))
    torch.testing.assert_close(changed, last, rtol=0, atol=1e-12)


@pytest.mark.parametrize("by", SCALES)
@pytest.mark.parametrize("name", ["value", "output"])
@pytest.mark.parametrize("changes", [{}, PLAIN, {"positions": "rotary"}], ids=str)
def test_attention_is_of_degree_one(changes: dict[str, Any], name: str, by: float) -> None:
    lm = model(**changes)
    parameters, x = parameters_of(lm), hidden()
    prefix = "blocks.0.attention"
    places = torch.arange(x.shape[-2])
    before, _ = lm.attention(parameters, prefix, x, places)
    larger = scaled(parameters, named(f"attention.{name}"), by)
    after, _ = lm.attention(larger, prefix, x, places)
    torch.testing.assert_close(after, by * before, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("by", SCALES)
@pytest.mark.parametrize(
    ("activation", "name", "homogeneous"),
    [("relu", "inner", True), ("relu", "outer", True), ("gelu", "outer", True),
     ("gelu", "inner", False)],
)  # fmt: skip
def test_degrees_of_the_feedforward_part(
    activation: str, name: str, homogeneous: bool, by: float
) -> None:
    lm = model(architecture="transformer", activation=activation)
    parameters, x = parameters_of(lm), hidden()
    expected = by * lm.feedforward(parameters, 0, x)
    found = lm.feedforward(scaled(parameters, named(f"feedforward.{name}"), by), 0, x)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10) == homogeneous


def test_logits_are_of_degree_one_in_the_output_layer() -> None:
    lm = model()
    parameters = parameters_of(lm)
    larger = logits(lm, scaled(parameters, named("output.weight", "output.bias"), 5.0))
    outer = [name for name in parameters if name.startswith("output.")]
    assert outer == ["output.weight", "output.bias"]
    only = {name: 5.0 * p if name in outer else p for name, p in parameters.items()}
    features = lm.features(parameters, IDS)
    torch.testing.assert_close(lm.logits(only, features), 5.0 * logits(lm, parameters))
    assert larger.shape == (4, 9, VOCABULARY)


def test_sgd_on_an_invariant_group_only_ever_grows_it() -> None:
    lm = model()
    leaves = {name: p.clone().requires_grad_() for name, p in parameters_of(lm).items()}
    for _ in range(5):
        loss = logits(lm, leaves).logsumexp(-1).mean()
        chosen = {name: p for name, p in leaves.items() if QUERIES(name) or KEYS(name)}
        gradients = torch.autograd.grad(loss, list(chosen.values()))
        for (name, p), gradient in zip(chosen.items(), gradients, strict=True):
            after = (p - 0.1 * gradient).detach()
            expected = p.square().sum() + 0.01 * gradient.square().sum()
            torch.testing.assert_close(after.square().sum(), expected.detach())
            leaves[name] = after.requires_grad_()


def hidden() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 5, 12, generator=generator, dtype=torch.float64)


def test_all_encodings_are_considered() -> None:
    biased = {name for name in ENCODINGS if ENCODINGS[name].bias}
    assert biased == {"alibi", "t5", "kerple", "fire", "relative"}
