"""Transformers against a slow reference, and properties of all of them."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fedsi.errors import UserError
from fedsi.experiment import Experiment, ModelSettings
from fedsi.models.build import initial_parameters
from fedsi.models.parameters import Parameters
from fedsi.models.positions.table import ENCODINGS
from fedsi.models.transformer import Transformer

VOCABULARY = 11
POSITIONS = sorted(ENCODINGS)


def model(**changes: Any) -> Transformer:
    values = {
        "architecture": "transformer",
        "embedding_size": 8,
        "heads": 2,
        "layers": 2,
        "feedforward_size": 12,
        "max_length": 7,
        **changes,
    }
    return Transformer(ModelSettings(**values), VOCABULARY)


def random_parameters(lm: Transformer, *axes: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*axes, lm.layout.size, generator=generator, dtype=torch.float64)


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def run(lm: Transformer, flat: Tensor, ids: Tensor) -> Tensor:
    views = lm.layout.views(flat)
    return lm.logits(views, lm.features(views, ids))


def slow_norm(p: Parameters, prefix: str, x: Tensor) -> Tensor:
    scale, shift = p.get(f"{prefix}.scale"), p.get(f"{prefix}.shift")
    return functional.layer_norm(x, x.shape, scale, shift, eps=1e-15)


def slow_attention(lm: Transformer, p: Parameters, prefix: str, xs: list[Tensor]) -> list[Tensor]:
    """Gather for each position and head in turn."""
    s = lm.settings
    size = s.embedding_size // s.heads
    encoding = ENCODINGS[s.positions]
    places = torch.arange(len(xs))
    bias = encoding.bias(p, places, places, s.heads) if encoding.bias else None
    outputs = [torch.zeros(s.embedding_size, dtype=torch.float64) for _ in xs]
    for head, i in product(range(s.heads), range(len(xs))):
        part = slice(head * size, (head + 1) * size)

        def of(name: str, j: int, part: slice = part) -> Tensor:
            vector = (xs[j] @ p[f"{prefix}.{name}"])[part]
            if encoding.rotate and name != "value":
                vector = encoding.rotate(vector.unsqueeze(0), torch.tensor([j]))[0]
            return vector

        scores = []
        for j in range(i + 1):
            score = float(of("query", i) @ of("key", j)) / math.sqrt(size)
            scores.append(score if bias is None else score + float(bias[head, i, j]))
        si = s.scale_invariance in {"attention", "full"} or s.architecture == "si_transformer"
        raw = [max(x, 0.0) if si else math.exp(x) for x in scores]
        total = sum(raw) or 1.0
        outputs[i][part] = sum(
            (r / total * of("value", j) for j, r in enumerate(raw)),
            start=torch.zeros(size, dtype=torch.float64),
        )
    return [output @ p[f"{prefix}.output"] for output in outputs]


def slow_features(lm: Transformer, p: Parameters, ids: list[int]) -> Tensor:
    s = lm.settings
    xs = [p["embedding"][i] for i in ids]
    if s.embedding_normalisation == "rms":
        xs = [x / x.square().mean().sqrt() for x in xs]
    embed = ENCODINGS[s.positions].embed
    if embed:
        xs = list(embed(p, torch.stack(xs).unsqueeze(0), torch.arange(len(xs)))[0])
    act = functional.gelu if s.activation == "gelu" else torch.relu
    for layer in range(s.layers):
        b = f"blocks.{layer}"
        normal = [slow_norm(p, f"{b}.attention_norm", x) for x in xs]
        added = slow_attention(lm, p, f"{b}.attention", normal)
        xs = [x + a for x, a in zip(xs, added, strict=True)]
        normal = [slow_norm(p, f"{b}.feedforward_norm", x) for x in xs]
        inner = [act(x @ p[f"{b}.feedforward.inner"]) for x in normal]
        xs = [x + i @ p[f"{b}.feedforward.outer"] for x, i in zip(xs, inner, strict=True)]
    return torch.stack([slow_norm(p, "norm", x) for x in xs])


VARIANTS: list[dict[str, Any]] = [
    *({"positions": name} for name in POSITIONS),
    *({"positions": name, "architecture": "si_transformer"} for name in POSITIONS),
    {"scale_invariance": "cell"},
    {"scale_invariance": "attention", "activation": "gelu", "heads": 1},
    {"scale_invariance": "full", "embedding_normalisation": "none"},
    {"activation": "gelu", "tied_output": True, "layers": 1, "heads": 8},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_equals_the_equations_one_position_at_a_time(variant: dict[str, Any]) -> None:
    lm = model(**variant)
    p = lm.layout.views(random_parameters(lm))
    ids = tokens(2, 6)
    fast = lm.features(p, ids)
    slow = torch.stack([slow_features(lm, p, row) for row in ids.tolist()])
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-10)
    output = p["embedding"].T if lm.settings.tied_output else p["output.weight"]
    expected = slow @ output + p["output.bias"]
    torch.testing.assert_close(lm.logits(p, fast), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(lm.logits(p, fast[0]), expected[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_client_axis_is_as_many_separate_clients(variant: dict[str, Any]) -> None:
    lm = model(**variant)
    flat, ids = random_parameters(lm, 3), tokens(3, 2, 5)
    together = run(lm, flat, ids)
    assert together.shape == (3, 2, 5, VOCABULARY)
    for client in range(3):
        alone = run(lm, flat[client], ids[client])
        torch.testing.assert_close(together[client], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("architecture", ["transformer", "si_transformer"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_no_word_is_seen_before_its_turn(positions: str, architecture: str) -> None:
    lm = model(positions=positions, architecture=architecture)
    flat, ids = random_parameters(lm), tokens(1, 7)
    before = run(lm, flat, ids)
    for place in range(1, 7):
        changed = ids.clone()
        changed[0, place] = (ids[0, place] + 1) % VOCABULARY
        after = run(lm, flat, changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.equal(after[:, place:], before[:, place:])


@pytest.mark.parametrize("positions", POSITIONS)
def test_only_an_encoding_tells_a_later_word_the_order(positions: str) -> None:
    """Without a position encoding, an attention block treats the previous tokens as a set."""
    lm = model(positions=positions, layers=1)
    flat = random_parameters(lm)
    one, two = (run(lm, flat, torch.tensor([ids])) for ids in ([1, 2, 3, 4], [3, 1, 2, 4]))
    same = torch.allclose(one[0, -1], two[0, -1], rtol=0, atol=1e-10)
    assert same == (positions == "none")


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("architecture", ["transformer", "si_transformer"])
def test_gradients_against_finite_differences(positions: str, architecture: str) -> None:
    lm = model(positions=positions, architecture=architecture, layers=1, embedding_size=4)
    flat = random_parameters(lm).requires_grad_()
    direction = random_parameters(lm, seed=8)
    ids = tokens(1, 3)

    def loss(vector: Tensor) -> Tensor:
        return run(lm, vector, ids).logsumexp(-1).sum()

    (gradient,) = torch.autograd.grad(loss(flat), flat)
    step = 1e-6
    with torch.no_grad():
        rise = loss(flat + step * direction) - loss(flat - step * direction)
    assert float(gradient @ direction) == pytest.approx(float(rise) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
def test_vectorised_gradients_of_torch_are_those_of_the_client_axis(positions: str) -> None:
    lm = model(positions=positions, architecture="si_transformer")
    flat, ids = random_parameters(lm, 2), tokens(2, 2, 5)

    def loss(vector: Tensor, batch: Tensor) -> Tensor:
        return run(lm, vector, batch).logsumexp(-1).sum()

    mapped = torch.func.vmap(torch.func.grad(loss))(flat, ids)
    leaf = flat.clone().requires_grad_()
    (together,) = torch.autograd.grad(loss(leaf, ids), leaf)
    torch.testing.assert_close(mapped, together, rtol=1e-9, atol=1e-9)


def test_si_transformer_is_the_transformer_with_all_parts() -> None:
    si, full = model(architecture="si_transformer"), model(scale_invariance="full")
    flat, ids = random_parameters(si), tokens(2, 5)
    assert si.layout == full.layout
    assert torch.equal(run(si, flat, ids), run(full, flat, ids))
    plain = model()
    assert plain.layout.size == si.layout.size + (2 * 2 + 1) * 2 * 8
    attention = model(scale_invariance="attention")
    assert attention.layout == plain.layout
    assert model(scale_invariance="cell").layout == si.layout


def test_a_query_without_a_positive_score_gathers_nothing() -> None:
    lm = model(architecture="si_transformer", layers=1, heads=1)
    views = lm.layout.views(random_parameters(lm).clone().requires_grad_())
    views["blocks.0.attention.query"] = -views["blocks.0.attention.key"]
    x = torch.ones(1, 3, 8, dtype=torch.float64)
    gathered, _ = lm.attention(views, "blocks.0.attention", x, torch.arange(3))
    assert gathered.abs().max() == 0
    gradient = torch.autograd.grad(gathered.sum(), views["blocks.0.attention.key"])
    assert gradient[0].isfinite().all()


@pytest.mark.parametrize("positions", POSITIONS)
def test_initial_parameters(positions: str) -> None:
    lm = model(positions=positions, embedding_size=48, heads=4, max_length=50)
    flat = initial_parameters(lm, seed=4)
    assert flat.isfinite().all()
    assert torch.equal(flat, initial_parameters(lm, seed=4))
    p = lm.layout.views(flat)
    assert p["blocks.0.attention.query"].abs().max() <= math.sqrt(6 / 96)
    assert p["blocks.1.feedforward.outer"].std().item() == pytest.approx(math.sqrt(2 / 60), rel=0.1)
    assert p["norm.scale"].tolist() == [1.0] * 48
    assert p["blocks.0.attention_norm.shift"].tolist() == [0.0] * 48
    softplus = functional.softplus
    match positions:
        case "learned":
            assert 0.47 < p["positions.table"].abs().max() <= 0.5
        case "t5" | "relative":
            assert p["positions.table"].abs().max() == 0
        case "kerple":
            assert softplus(p["positions.strength"]).max() <= 2
            assert softplus(p["positions.rate"]).max() <= 1
        case "fire":
            assert softplus(p["positions.curvature"]).item() == pytest.approx(0.1)
            assert softplus(p["positions.threshold"]).item() == pytest.approx(50)
            assert p["positions.second.weight"].abs().max() <= 1 / math.sqrt(32)
            assert p["positions.second.bias"].abs().max() > 0
        case _:
            assert not any(name.startswith("positions.") for name in p)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ["transformer", "si_transformer"])
def test_at_first_all_words_are_about_as_likely(architecture: str, tied: bool) -> None:
    settings = ModelSettings(
        architecture=architecture, embedding_size=128, tied_output=tied, feedforward_size=256
    )
    lm = Transformer(settings, 1000)
    ids = torch.randint(0, 1000, (8, 21), generator=torch.Generator().manual_seed(0))
    logits = run(lm, initial_parameters(lm, seed=0), ids[:, :-1])
    loss = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    assert math.log(1000) - 0.3 < loss.item() < math.log(1000) + 1.2


def test_a_sequence_longer_than_the_learned_positions_is_refused() -> None:
    lm = model(positions="learned")
    with pytest.raises(UserError, match="8 tokens is longer than the 7 learned"):
        run(lm, random_parameters(lm), tokens(1, 8))
    assert run(lm, random_parameters(lm), tokens(1, 7)).shape == (1, 7, VOCABULARY)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"architecture": "transformer", "heads": 5}, r"heads \(5\) does not divide .*\(64\)"),
        (
            {"architecture": "transformer", "positions": "rotary", "heads": 64},
            "rotary .* even head size, not 1",
        ),
        (
            {"architecture": "transformer", "positions": "learned", "max_length": 19},
            r"max_length \(19\) .* data.sequence_length \(20\); set model.max_length=20",
        ),
        ({"architecture": "cifg", "positions": "fire"}, "positions=fire has no effect .*=cifg"),
        ({"architecture": "lstm", "activation": "gelu"}, "activation=gelu has no effect .*=lstm"),
        (
            {"architecture": "cifg", "scale_invariance": "cell"},
            "scale_invariance=cell has no effect with model.architecture=cifg",
        ),
        ({"architecture": "lstm", "scale_invariance": "full"}, "has no effect .*=lstm"),
        ({"architecture": "si_cifg", "scale_invariance": "attention"}, "allows cell, full or none"),
        ({"architecture": "si_transformer", "scale_invariance": "cell"}, "allows full or none"),
        (
            {"architecture": "si_transformer", "activation": "gelu"},
            "activation=gelu is not homogeneous",
        ),
        (
            {"architecture": "transformer", "recurrent_projection": True},
            "recurrent_projection=true has no effect .*=transformer",
        ),
        (
            {"recurrent_projection": True, "projection": False},
            "recurrent_projection=true .* set model.projection=true",
        ),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected) as error:
        Experiment().updated({f"model.{key}": value for key, value in changes.items()})
    assert "\n" not in str(error.value)
    assert "and 1 more" not in str(error.value)
