"""Position encodings on ids: against loops, against positions, several streams, refusals."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsi import Experiment, UserError
from fedsi.experiment import ModelSettings
from fedsi.learning.random_starts import with_random_start
from fedsi.models.build import build_model
from fedsi.models.positions import kerple, relative, t5
from fedsi.models.positions.encoding import Encoding
from fedsi.models.positions.table import ENCODINGS
from fedsi.models.transformer import Transformer
from fedsi.tasks.task import Batch

IDS = torch.tensor([[-1, 2, 3, 4, 2, 3, 4, 3, 2, 1, -1], [0, 9, 1, 60, 2, 5, -1, -1, 7, 3, 8]])
HEADS = 2
ON_IDS = [name for name in ENCODINGS if ENCODINGS[name].on_ids]


def settings(positions: str, **keys: Any) -> ModelSettings:
    return ModelSettings(
        architecture="transformer", positions=positions, heads=HEADS, layers=1,
        embedding_size=8, feedforward_size=8, max_length=80, **keys,
    )  # fmt: skip


def parameters(encoding: Encoding, model: ModelSettings) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = encoding.shapes(model).items()
    return {k: torch.randn(*v, generator=generator, dtype=torch.float64) for k, v in shapes}


def slow(name: str, own: dict[str, Tensor], query: int, key: int, head: int) -> float:
    """Return the bias of one pair of ids, as the docstrings of the encodings say."""
    if query < 0 or key < 0:
        return float(own[relative.TABLE][-1, head]) if name == "relative" else 0.0
    distance = abs(key - query)
    if name == "alibi":
        return -(2 ** (-8 * (head + 1) / HEADS)) * distance
    if name == "kerple":
        strength, rate = (
            np.logaddexp(0, float(own[k][head])) for k in (kerple.STRENGTH, kerple.RATE)
        )
        return float(-strength * np.log1p(rate * distance))
    if name == "t5":
        large = 8 + int(np.log(max(distance, 8) / 8) / np.log(128 / 8) * 8 + 1e-9)
        bucket = distance if distance < 8 else min(15, large)
        return float(own[t5.TABLE][bucket + 16 * (key > query), head])
    return float(own[relative.TABLE][min(max(key - query, -3), 3) + 3, head])


@pytest.mark.parametrize("name", ["alibi", "kerple", "t5", "relative"])
def test_biases_are_those_of_a_loop_over_pairs(name: str) -> None:
    encoding = ENCODINGS[name]
    assert encoding.on_ids
    assert encoding.on_ids.bias
    own = parameters(encoding, settings(name))
    found = encoding.on_ids.bias(own, IDS, HEADS)
    assert found.shape == (2, HEADS, 11, 11)
    for row, head, query, key in np.ndindex(*found.shape):
        pair = int(IDS[row, query]), int(IDS[row, key])
        assert float(found[row, head, query, key]) == pytest.approx(
            slow(name, own, *pair, head), abs=1e-12
        )


@pytest.mark.parametrize("name", [name for name in ON_IDS if name != "t5"])
def test_ids_that_count_are_positions(name: str) -> None:
    model = Transformer(settings(name), 13)
    on_ids = Transformer(settings(name), 13, streams=1)
    generator = torch.Generator().manual_seed(1)
    named = model.layout.views(torch.randn(model.layout.size, generator=generator).double())
    inputs = torch.randint(1, 13, (3, 7), generator=generator)
    ids = torch.arange(7).expand(1, 3, 7)
    expected = model.features(named, inputs)
    torch.testing.assert_close(on_ids.features(named, inputs, ids), expected)
    if name != "none":
        other = on_ids.features(named, inputs, ids * ids)
        assert (other - expected).abs().max() > 1e-3


def test_a_token_without_an_id_gets_nothing_from_a_table() -> None:
    for name in ("learned", "sinusoidal"):
        model = Transformer(settings(name), 13, streams=1)
        named = model.layout.views(torch.randn(model.layout.size))
        inputs = torch.randint(1, 13, (2, 11))
        free = torch.full((1, 2, 11), -1)
        plain = Transformer(settings("none"), 13)
        torch.testing.assert_close(
            model.features(named, inputs, free), plain.features(named, inputs)
        )


def test_several_streams_add_their_biases_and_their_rows() -> None:
    for name in ("relative", "learned", "t5"):
        two = Transformer(settings(name), 13, streams=2)
        assert {k for k in two.layout.shapes if "positions" in k} == {
            "positions.table",
            "positions.1.table",
        }
        named = two.layout.views(torch.randn(two.layout.size).double())
        inputs, ids = torch.randint(1, 13, (2, 11)), torch.stack([IDS, IDS.flip(-1)])
        swapped = {
            **named,
            "positions.table": named["positions.1.table"],
            "positions.1.table": named["positions.table"],
        }
        found = two.features(named, inputs, ids)
        torch.testing.assert_close(two.features(swapped, inputs, ids.flip(0)), found)
        assert (two.features(swapped, inputs, ids) - found).abs().max() > 1e-3
        assert torch.equal(two.draw(np.random.default_rng(0)), two.draw(np.random.default_rng(0)))


def test_encodings_without_a_meaning_for_ids_are_refused() -> None:
    def built(positions: str) -> object:
        return build_model(
            Experiment(task={"name": "arithmetic"}, model=settings(positions).model_dump()), 16
        )

    with pytest.raises(UserError, match=r"positions=fire has no meaning for .*query's position"):
        built("fire")
    assert all(built(name) for name in ENCODINGS if name != "fire")
    for name in ("rotary", "sinusoidal"):
        with pytest.raises(UserError, match=r"2 streams could not be told apart; set model.posit"):
            Transformer(settings(name), 13, streams=2)


def test_ids_beyond_a_learned_table_are_refused() -> None:
    model = Transformer(settings("learned"), 13, streams=1)
    named = model.layout.views(torch.randn(model.layout.size))
    inputs = torch.ones(1, 2, dtype=torch.long)
    model.features(named, inputs, torch.tensor([[[0, 79]]]))
    with pytest.raises(UserError, match=r"the id 80 is beyond the 80 learned positions.*relative"):
        model.features(named, inputs, torch.tensor([[[0, 80]]]))


def test_a_model_with_ids_continues_no_text() -> None:
    model = Transformer(settings("relative"), 13, streams=1)
    named = model.layout.views(torch.randn(model.layout.size))
    with pytest.raises(UserError, match="it cannot continue a text; evaluate it with"):
        model.continued(named, torch.ones(1, 2, dtype=torch.long), [])


def test_random_starts_move_whole_examples_within_the_table() -> None:
    rng, tokens = np.random.default_rng(0), np.ones((400, 4), np.int32)
    ids = np.broadcast_to(np.array([-1, 3, 2, 5]), (2, 400, 4))
    moved = with_random_start(Batch(tokens, tokens, ids), 10, rng).positions
    assert moved is not None
    assert (moved[..., 0] == -1).all()
    shift = moved[..., 1:] - ids[..., 1:]
    assert (shift == shift[..., :1]).all()
    assert set(shift.ravel()) == {0, 1, 2, 3, 4}
    assert (shift[0] != shift[1]).any()
    counted = with_random_start(Batch(tokens, tokens), 4, rng).positions
    assert counted is not None
    assert (counted == np.arange(4)).all()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"positions": "fire", "random_start": True},
            "random_start=true has no effect with model.",
        ),
        ({"positions": "kerple", "fire_layers": 1}, "fire_layers=1 has no effect with model.pos"),
        ({"positions": "none", "max_distance": 4}, "max_distance=4 has no effect with model.pos"),
    ],
)
def test_keys_of_other_encodings_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Experiment(model={"architecture": "transformer", **keys})
