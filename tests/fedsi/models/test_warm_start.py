"""Initial weights for another vocabulary: each row goes to the word that it was trained for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsi import Experiment, UserError
from fedsi.data.protocol import SPECIAL_TOKENS
from fedsi.data.vocabulary import WordVocabulary
from fedsi.models.build import build_model, initial_parameters
from fedsi.models.warm_start import matched, misfits, warm_started, word_axes

words = st.lists(st.sampled_from("abcdefghij"), unique=True, min_size=1, max_size=8)
SMALL = {"embedding_size": 4, "hidden_size": 4}


def experiment(architecture: str) -> Experiment:
    sizes = {"embedding_size": 4, "heads": 2, "layers": 1, "feedforward_size": 4}
    used = sizes if "transformer" in architecture else SMALL
    return Experiment(model={"architecture": architecture, **used}, data={"sequence_length": 2})


@given(here=words, there=words, architecture=st.sampled_from(["si_cifg", "transformer"]))
def test_rows_go_to_their_words(here: list[str], there: list[str], architecture: str) -> None:
    if not set(here) & set(there):
        with pytest.raises(UserError, match="no word in common"):
            matched(WordVocabulary(here), WordVocabulary(there))
        return
    found = matched(WordVocabulary(here), WordVocabulary(there))
    assert found.kept == len(set(here) & set(there))
    assert found.new == len(set(here) - set(there))
    assert found.dropped == len(set(there) - set(here))
    one = experiment(architecture)
    model, other = (build_model(one, 4 + len(names)) for names in (here, there))
    source = other.layout.views(initial_parameters(other, 1))
    drawn = initial_parameters(model, 2)
    axes = word_axes(one, 4 + len(here))
    assert not misfits(model.layout, axes, source, 4 + len(there))
    flat = warm_started(drawn, model.layout, axes, source, found)
    names = [[*SPECIAL_TOKENS, *own] for own in (here, there)]
    views = model.layout.views(flat)
    for name, before in model.layout.views(drawn).items():
        if not axes[name]:
            assert torch.equal(views[name], source[name])
            continue
        (axis,) = axes[name]
        for token, word in enumerate(names[0]):
            known = word in names[1]
            wanted = source[name].select(axis, names[1].index(word)) if known else None
            expected = before.select(axis, token) if wanted is None else wanted
            assert torch.equal(views[name].select(axis, token), expected)


def test_words_of_another_order_are_not_taken_for_the_same() -> None:
    found = matched(WordVocabulary(["a", "b", "c"]), WordVocabulary(["c", "a", "x"]))
    assert (found.here, found.there) == ([0, 1, 2, 3, 4, 6], [0, 1, 2, 3, 5, 4])
    assert (found.kept, found.new, found.dropped) == (2, 1, 1)


@pytest.mark.parametrize("tied", [False, True])
def test_what_grows_with_the_vocabulary_is_found(tied: bool) -> None:
    one = Experiment(model={**SMALL, "tied_output": tied})
    # A hidden size equal to the vocabulary size causes no confusion.
    axes = word_axes(one, 4)
    assert axes["embedding"] == (0,)
    assert axes["cell.recurrent"] == ()
    assert sum(map(bool, axes.values())) == (2 if tied else 3)


def test_each_tensor_that_does_not_fit_is_named() -> None:
    one = Experiment(model=SMALL)
    model = build_model(one, 9)
    source = dict(model.layout.views(torch.zeros(model.layout.size)))
    source["cell.kernel"] = torch.zeros(3, 5)
    del source["cell.bias"]
    source["more"] = torch.from_numpy(np.zeros(2))
    assert misfits(model.layout, word_axes(one, 9), source, 9) == [
        "cell.kernel is [3, 5] and should be [4, 12]",
        "cell.bias is missing",
        "more is not in this model",
    ]
