"""Distillation of a finished run's model into a smaller one, and what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedsi import Experiment, UserError
from fedsi.data.batches import trim
from fedsi.data.prepare import open_population, prepare_for
from fedsi.learning.pooled import pooled_batches
from fedsi.learning.teacher import teacher_of
from fedsi.models.build import build_model
from fedsi.seeds import Purpose, generator
from fedsi.tasks import next_word
from simulations import simulate
from simulations.finished_run import open_run
from tests.server.test_central import CENTRAL, SMALL, flat
from tests.slow_federated import SlowClients, relative_distance

STUDENT = SMALL.updated(
    {
        "algorithm.name": "distillation",
        "algorithm.temperature": 2.0,
        "model.architecture": "cifg",
        "server.rounds": 2,
    }
    | {"algorithm.teacher": "nowhere"}
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Train a small Transformer centrally."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    changes: dict[str, Any] = {"model.architecture": "transformer", "model.layers": 1}
    simulate(SMALL.updated({**CENTRAL, **changes, "server.rounds": 2}), out=folder, cache=cache)
    return folder


def test_equals_a_plain_loop_against_the_teacher(teacher: Path, cache: Path) -> None:
    experiment = STUDENT.updated({"algorithm.teacher": str(teacher)})
    clients, client, heat = SlowClients(experiment, cache), experiment.client, 2.0
    model, population, run = clients.model, clients.population, open_run(teacher)
    start = clients.start()
    leaf = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([leaf], lr=client.learning_rate)
    for number in (1, 2):
        rows = []
        for member in clients.cohort(number):
            examples = population.examples(member)
            order = generator(experiment.seed, Purpose.TRAINING_ORDER, number, member)
            rows += list(examples[order.permutation(len(examples))[:9]])
        order = generator(experiment.seed, Purpose.POOLED_ORDER, number)
        for places in pooled_batches(len(rows), client.batch_size, 1, None, order):
            batch = next_word.batch(trim(np.array([rows[k] for k in places])))
            inputs, asked = torch.from_numpy(batch.inputs).long(), torch.from_numpy(batch.asked)
            logits = []
            for one, named in (
                (run.trained.model, run.trained.parameters),
                (model, model.layout.views(leaf)),
            ):
                logits.append(one.logits(named, one.features(named, inputs))[asked] / heat)
            wanted, found = logits[0].softmax(-1).detach(), logits[1].log_softmax(-1)
            loss = heat**2 * -(wanted * found).sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    result = simulate(experiment, cache=cache)
    assert relative_distance(flat(result.parameters), leaf.detach(), start) < 1e-4
    hard = simulate(experiment.updated({**CENTRAL}), cache=cache)
    assert result.summary.model_sha256 != hard.summary.model_sha256


@pytest.mark.slow
def test_the_bits_do_not_depend_on_workers_nor_on_an_interruption(
    teacher: Path, cache: Path, tmp_path: Path
) -> None:
    experiment = STUDENT.updated({"algorithm.teacher": str(teacher), "client.optimizer": "adamw"})
    experiment = experiment.updated({"client.learning_rate": 0.01})
    whole = simulate(experiment, cache=cache).summary
    assert simulate(experiment, workers=2, cache=cache).summary.model_sha256 == whole.model_sha256

    def stop(_: Experiment, record: Any) -> None:
        if record.round == 1:
            raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        simulate(experiment, out=out, cache=cache, on_round=stop)
    resumed = simulate(experiment, out=out, cache=cache, resume=True)
    assert resumed.summary.model_sha256 == whole.model_sha256
    written = Experiment.from_file(out / "experiment.toml").algorithm.teacher_sha256
    assert len(str(written)) == 64


def test_what_is_refused(teacher: Path, cache: Path) -> None:
    with pytest.raises(UserError, match=r"distillation has no teacher; name the folder"):
        STUDENT.updated({"algorithm.teacher": None})
    with pytest.raises(UserError, match=r"privacy\.mechanism=gaussian"):
        STUDENT.updated(
            {
                "privacy.mechanism": "gaussian",
                "privacy.noise_multiplier": 1.0,
                "server.sampling": "poisson",
                "server.averaging": "uniform",
            }
        )
    with pytest.raises(UserError, match=r"teacher=\S+ has no effect with algorithm\.name=fed_avg"):
        Experiment(algorithm={"teacher": "somewhere"})
    with pytest.raises(UserError, match=r"cannot read algorithm\.teacher=\S*nowhere: No such file"):
        simulate(STUDENT, cache=cache)
    given = STUDENT.updated({"algorithm.teacher": str(teacher)})
    with pytest.raises(UserError, match=r"has another vocabulary than the corpus synthetic"):
        simulate(given.updated({"data.vocabulary_size": 90}), cache=cache)
    with pytest.raises(UserError, match=r"the experiment was written for 0000"):
        simulate(given.updated({"algorithm.teacher_sha256": "0" * 64}), cache=cache)


def test_the_loss_of_a_learner_that_is_the_teacher_has_no_gradient(
    teacher: Path, cache: Path
) -> None:
    experiment = STUDENT.updated({"algorithm.teacher": str(teacher)})
    population = open_population(prepare_for(experiment, cache))
    run = open_run(teacher)
    imitated = teacher_of(experiment, population.vocabulary())
    batch = next_word.batch(population.examples(0))
    (shown,) = imitated.before([batch])
    model = build_model(run.experiment, population.description.vocabulary_size)
    leaf = run.flat.clone().requires_grad_()
    named = model.layout.views(leaf)
    features = model.features(named, torch.from_numpy(shown.inputs).long())
    logits = model.logits(named, features[torch.from_numpy(shown.asked)])
    losses = imitated.losses(logits, torch.zeros(len(logits)))
    (gradient,) = torch.autograd.grad(losses.mean(), leaf)
    assert gradient.abs().max() < 1e-6
