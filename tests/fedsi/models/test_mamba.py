"""Mamba-2 models against a slow reference, initial parameters, memory and errors."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fedsi.errors import UserError
from fedsi.experiment import Experiment, ModelSettings
from fedsi.models.build import initial_parameters
from fedsi.models.mamba import Mamba
from fedsi.models.parameters import Parameters
from fedsi.models.state_space import CHUNK

VOCABULARY = 11
SIZE, HIDDEN, STATE, HEADS = 8, 6, 5, 2


def model(**changes: Any) -> Mamba:
    sizes = {"embedding_size": SIZE, "hidden_size": HIDDEN, "state_size": STATE, "heads": HEADS}
    return Mamba(ModelSettings(architecture="mamba", **{**sizes, **changes}), VOCABULARY)


def draw(lm: Mamba, *shape: int) -> tuple[Parameters, Tensor]:
    generator = torch.Generator().manual_seed(3)
    flat = torch.randn(lm.layout.size, generator=generator, dtype=torch.float64)
    return lm.layout.views(flat), torch.randint(0, VOCABULARY, shape, generator=generator)


def root_mean_square(x: Tensor) -> Tensor:
    return x / x.square().mean().sqrt()


def slow_block(p: Parameters, xs: list[Tensor]) -> list[Tensor]:
    """Read word by word, head by head, with the state of the recurrence."""
    convolved = HIDDEN + 2 * STATE
    projected = [x @ p["input"] for x in xs]
    state = torch.zeros(HEADS, STATE, HIDDEN // HEADS, dtype=torch.float64)
    results = []
    for t, row in enumerate(projected):
        z, dts = row[:HIDDEN], row[HIDDEN + convolved :]
        mixed = p["convolution.bias"].clone()
        for back in range(min(4, t + 1)):
            past = projected[t - back][HIDDEN : HIDDEN + convolved]
            mixed += p["convolution.weight"][3 - back] * past
        mixed = mixed * torch.sigmoid(mixed)
        write, read = mixed[HIDDEN : HIDDEN + STATE], mixed[HIDDEN + STATE :]
        outputs = []
        for head in range(HEADS):
            x = mixed[:HIDDEN].view(HEADS, -1)[head]
            dt = functional.softplus(dts[head] + p["dt_bias"][head])
            kept = torch.exp(-p["A_log"][head].exp() * dt)
            state[head] = kept * state[head] + dt * torch.outer(write, x)
            outputs.append(read @ state[head] + p["D"][head] * x)
        y = torch.cat(outputs) * z * torch.sigmoid(z)
        results.append((root_mean_square(y) * p["output_norm"]) @ p["output"])
    return results


def slow_logits(lm: Mamba, p: Parameters, ids: list[int]) -> Tensor:
    stream = [root_mean_square(p["embedding"][word]) for word in ids]
    for layer in range(lm.settings.layers):
        prefix = f"blocks.{layer}."
        own = {k.removeprefix(prefix): v for k, v in p.items() if k.startswith(prefix)}
        added = slow_block(own, [root_mean_square(x) * own["norm"] for x in stream])
        stream = [x + more for x, more in zip(stream, added, strict=True)]
    rows = torch.stack([root_mean_square(x) * p["norm"] for x in stream])
    return rows @ p["output.weight"] + p["output.bias"]


@pytest.mark.parametrize("time", [1, 3, CHUNK + 5])
def test_gives_what_a_loop_over_the_words_gives(time: int) -> None:
    lm = model()
    p, ids = draw(lm, 1, time)
    found = lm.logits(p, lm.features(p, ids))[0]
    torch.testing.assert_close(found, slow_logits(lm, p, ids[0].tolist()), rtol=1e-9, atol=1e-9)


def test_the_memory_does_not_grow_with_the_text() -> None:
    lm = model()
    p, ids = draw(lm, 2, 40)
    _, memory = lm.continued(p, ids[:, :1], [])
    shapes = [[part.shape for part in block] for block in memory]
    for word in ids[:, 1:].unbind(1):
        features, memory = lm.continued(p, word[:, None], memory)
    assert [[part.shape for part in block] for block in memory] == shapes
    torch.testing.assert_close(features[:, 0], lm.features(p, ids)[:, -1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("style", ["default", "paper", "mimetic"])
def test_initial_parameters(style: str) -> None:
    lm = model(initialisation=style, heads=3, layers=1, embedding_size=50)
    p = lm.layout.views(initial_parameters(lm, 1))
    mimetic = style == "mimetic"
    rates, steps = p["blocks.0.A_log"].exp(), functional.softplus(p["blocks.0.dt_bias"])
    weight = p["blocks.0.input"]
    write, read, dt = weight[:, 2 * HIDDEN :].split([STATE, STATE, 3], 1)
    assert torch.equal(write, read) == mimetic
    assert bool(dt.any()) != mimetic
    assert p["embedding"].abs().max() <= (0.05 if style == "paper" else 0.5)
    if mimetic:
        torch.testing.assert_close(rates, torch.full((3,), 1e-3))
        torch.testing.assert_close(steps, torch.ones(3))
    else:
        assert ((rates >= 1) & (rates <= 16)).all()
        assert ((steps > 0.00099) & (steps < 0.101)).all()


def test_the_mimetic_block_gives_a_word_the_values_of_like_words() -> None:
    lm = model(initialisation="mimetic", convolution="identity", state_size=64, embedding_size=64)
    p = lm.layout.views(initial_parameters(lm, 1).double())
    assert torch.equal(p["blocks.0.convolution.weight"][-1], torch.ones(HIDDEN + 128).double())
    assert not p["blocks.0.convolution.weight"][:-1].any()
    rng = np.random.default_rng(0)
    words = torch.from_numpy(rng.normal(size=(6, 64)))
    projected = functional.silu(words @ p["blocks.0.input"][:, 2 * HIDDEN : 2 * HIDDEN + 64])
    scores = projected @ projected.T
    assert (scores.argmax(-1) == torch.arange(6)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "mamba", "heads": 3}, r"heads \(3\) does not divide .*hidden_size"),
        ({"architecture": "mamba", "activation": "gelu"}, "activation=gelu has no effect"),
        (
            {"architecture": "cifg", "initialisation": "mimetic"},
            "mimetic is not defined for model.architecture=cifg, which has default and paper",
        ),
        ({"architecture": "cifg", "convolution": "identity"}, "convolution=identity has no effect"),
        ({"architecture": "mamba", "state_size": 0}, "state_size"),
    ],
    ids=str,
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Experiment(model=changes)
