"""The public examples of a server, their numbers and their order."""

from pathlib import Path

import numpy as np
import pytest

from fedsi import Experiment
from fedsi.data.batches import trim
from fedsi.data.population import Population
from fedsi.data.public_corpus import open_public_corpus
from fedsi.data.vocabulary import WordVocabulary
from fedsi.learning.public_learner import PublicExamples, PublicLearner
from tests.slow_distillation import write_public_corpus

SIZE, PASSES, EXAMPLES = 7, 2, 60
IN_A_PASS = -(-EXAMPLES // SIZE)
EXPERIMENT = Experiment(
    server={"averaging": "uniform"},
    model={"architecture": "cifg", "embedding_size": 4, "hidden_size": 4},
    algorithm={
        "name": "fed_df",
        "public_corpus": "replaced",
        "distillation_batch_size": SIZE,
        "distillation_steps": PASSES * IN_A_PASS,
    },
)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Population:
    file = write_public_corpus(tmp_path_factory.mktemp("public"))
    words = WordVocabulary((f"word{k}" for k in range(100)), "spaces")
    experiment = EXPERIMENT.updated({"algorithm.public_corpus": str(file)})
    return open_public_corpus(experiment, words, cache)


def test_numbers_are_those_of_all_clients_examples_in_a_row(public: Population) -> None:
    facts = public.description
    assert facts.training_clients == facts.heldout_clients == 4  # each has sentences in both
    rows = np.concatenate([public.examples(client) for client in range(8)])
    examples = PublicExamples(public)
    assert len(examples) == len(rows) == EXAMPLES
    for numbers in (np.arange(len(rows)), np.random.default_rng(0).permutation(len(rows))[:9]):
        assert (examples[numbers] == trim(rows[numbers])).all()


def test_each_pass_uses_every_example_once_and_rounds_differ(public: Population) -> None:
    learner = PublicLearner(EXPERIMENT, public)
    batches = list(learner.batches(1))
    assert len(batches) == PASSES * IN_A_PASS
    for one in (batches[:IN_A_PASS], batches[IN_A_PASS:]):
        assert sum(len(batch) for batch in one) == EXAMPLES
        assert sum(batch.count for batch in one) == sum(batch.count for batch in batches) / PASSES
    bytes_of = [next(iter(learner.batches(number))).inputs.tobytes() for number in (1, 1, 2)]
    assert bytes_of[0] == bytes_of[1] != bytes_of[2]
