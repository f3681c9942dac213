"""Retrieval: batches, rankings, what clients compare, and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsi import Experiment, UserError
from fedsi.data.corpus import Row
from fedsi.data.label_sources import SOURCES
from fedsi.data.prepare import open_population, prepare_for
from fedsi.data.protocol import BOS
from fedsi.data.shards import write_shards
from fedsi.data.vocabulary import LabelledVocabulary
from fedsi.experiment import TaskSettings
from fedsi.tasks import retrieval
from tests.labelled import write_labelled

ANSWERS = np.array([[3, -1], [0, 2], [1, -1]])

BAD_LABELS = {
    "no_text": ('{"label": "x", "text": " "}', r"labels.jsonl, line 1: the label 'x' has no text"),
    "twice": (
        '{"label": "x", "text": "a"}\n{"label": "x", "text": "b"}',
        r"labels.jsonl, line 2: the label 'x' is there twice",
    ),
    "no_column": ('{"name": "x", "text": "a"}', r"labels.jsonl, line 1: no columns 'label' and"),
    "no_json": ("x;a", r"cannot read the labels .*labels.jsonl"),
    "one": (
        '{"label": "x", "text": "a"}',
        r"has one label only, 'x', and retrieval ranks",
    ),
    "too_many": (
        "".join(f'{{"label": "{n}", "text": "a"}}\n' for n in range(4)),
        r"labels.jsonl has 4 labels, more than task.labels = 3; raise it",
    ),
}


def retrieval_on(corpus: Path, **data: object) -> Experiment:
    return Experiment(
        task={"name": "retrieval"},
        model={"architecture": "dual_encoder"},
        data={"corpus": str(corpus), "label_column": "label", **data},
    )


ROWS = np.array([[BOS, 7, 9, 2, 0], [BOS, 8, 1, 0, 0], [BOS, 5, 6, 7, 3]], np.int32)


def test_a_batch_has_the_query_and_asks_for_its_answer_at_the_last_word() -> None:
    batch = retrieval.batch(ROWS)
    assert batch.inputs.tolist() == [[BOS, 7, 9, 0], [BOS, 8, 0, 0], [BOS, 5, 6, 7]]
    assert batch.targets.tolist() == [[0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 3]]


def test_counts_are_those_of_a_slow_ranking() -> None:
    batch = retrieval.batch(ROWS)
    outputs = torch.tensor([[4.0, 1, 3, 2], [5, 1, 2, 4], [9, 8, 7, 6]], dtype=torch.float64)
    task = retrieval.bound(TaskSettings(name="retrieval"), ANSWERS)
    counted = dict(zip(task.columns, task.counts(outputs, batch, torch.zeros(1)), strict=True))
    right = [set(ANSWERS[n - 1].tolist()) - {-1} for n in batch.targets[batch.asked].tolist()]
    rankings = [sorted(range(4), key=lambda n: -float(row[n])) for row in outputs]
    for k in retrieval.AT:
        found = sum(
            len(own & set(ranking[:k])) for own, ranking in zip(right, rankings, strict=True)
        )
        assert counted[f"found_at_{k}"] == found
    assert (counted["tokens"], counted["right"], counted["shown_at_5"]) == (3, 4, 12)
    metrics = task.metrics(np.array([list(counted.values())]))
    assert metrics["precision_at_1"] == pytest.approx(1 / 3)
    assert metrics["recall_at_5"] == 1


def test_a_batch_is_compared_with_its_own_labels_only() -> None:
    batch = retrieval.batch(ROWS[:2])
    targets = torch.from_numpy(batch.targets[batch.asked]).long()
    settings = TaskSettings(name="retrieval", negatives="batch")
    outputs = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    losses = retrieval.bound(settings, ANSWERS).losses
    of_batch = losses(outputs, targets)
    outputs[:, 1] = 50  # the label 1 is no right one of the batch
    torch.testing.assert_close(
        retrieval.bound(settings, ANSWERS).losses(outputs, targets), of_batch
    )
    everything = retrieval.bound(TaskSettings(name="retrieval"), ANSWERS).losses(outputs, targets)
    assert (everything > of_batch + 1).all()


def test_rows_of_a_population_have_their_answers(tmp_path: Path) -> None:
    """Each row's query and labels are those of the corpus, for whole and single examples."""
    lines = [
        json.dumps(dict(zip(("user", "text", "label"), row, strict=True)))
        for row in [("a", "one two three four", "x|y"), ("a", "five", "y"), ("b", "one two", "y|x"),
                    ("b", "two", "x|x"), ("c", "two one", "y"), ("c", "nothing", "")]
    ]  # fmt: skip
    (tmp_path / "c.jsonl").write_text("\n".join(lines), encoding="utf-8")
    experiment = retrieval_on(tmp_path / "c.jsonl", sequence_length=4, heldout_fraction=0.4)
    population = open_population(prepare_for(experiment, tmp_path))
    vocabulary = population.vocabulary()
    assert isinstance(vocabulary, LabelledVocabulary)
    names, answers = vocabulary.labels.names, population.answers
    assert answers is not None
    read = {}
    for client, name in enumerate(population.names()):
        rows = population.examples(client)
        batch = retrieval.batch(rows)
        numbers = batch.targets[batch.asked]
        read[name] = [
            (vocabulary.decode([t for t in row.tolist() if t > BOS]),
             {names[n] for n in answers[number - 1] if n >= 0})
            for row, number in zip(batch.inputs, numbers, strict=True)
        ]  # fmt: skip
        one = population.examples(client, np.array([len(rows) - 1]))
        assert one.tolist() == rows[-1:].tolist()
    assert read == {
        "c": [("two one", {"y"})],
        "a": [("one two three", {"x", "y"}), ("five", {"y"})],
        "b": [("one two", {"x", "y"}), ("two", {"x"})],
    }


def test_a_shard_has_the_answers_of_its_clients(tmp_path: Path) -> None:
    write_labelled(tmp_path / "c.jsonl", 6, 4)
    folder = prepare_for(retrieval_on(tmp_path / "c.jsonl"), tmp_path)
    whole = open_population(folder)
    shards = [open_population(one) for one in write_shards(folder, tmp_path / "shards", 2)]
    for client in range(6):
        here, away = shards[client % 2], shards[1 - client % 2]
        assert here.examples(client).tolist() == whole.examples(client).tolist()
        assert away.count(client) == 0
        assert np.array_equal(np.array(here.answers), np.array(whole.answers))
        assert here.vocabulary().file_text() == whole.vocabulary().file_text()


@pytest.mark.parametrize(("content", "sentence"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_a_bad_file_of_labels_is_one_sentence(content: str, sentence: str, tmp_path: Path) -> None:
    write_labelled(tmp_path / "c.jsonl", 4, 3)
    (tmp_path / "labels.jsonl").write_text(content, encoding="utf-8")
    experiment = retrieval_on(tmp_path / "c.jsonl").updated(
        {"task.label_file": str(tmp_path / "labels.jsonl"), "task.labels": 3}
    )
    with pytest.raises(UserError, match=sentence):
        prepare_for(experiment, tmp_path)


def test_labels_that_cannot_be_used_are_one_sentence(tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    write_labelled(corpus, 4, 3)
    cases: list[tuple[dict[str, object], str]] = [
        ({"data.label_column": "tag"}, "has no labels, and retrieval ranks at least two; name the"),
        ({"data.label_column": "none"}, "has no labels, and"),
        (
            {"task.label_source": "emoji"},
            "has no labels, .*; its texts have too few emoji for task",
        ),
        ({"task.labels": 1}, "has one label only, '.*', and"),
        ({"data.vocabulary_size": 3}, r"the labels have \d+ different words, more than data.vocab"),
        ({"data.corpus": "synthetic"}, "needs labels, and the synthetic corpus has none"),
        ({"task.loss": "soft_top_k", "task.k": 9}, r"task.k = 9 is not less than the \d labels"),
        ({"task.label_file": str(tmp_path / "absent.csv")}, "cannot read the labels .*absent.csv"),
    ]
    for changes, sentence in cases:
        with pytest.raises(UserError, match=sentence) as caught:
            prepare_for(retrieval_on(corpus).updated(changes), tmp_path)
        assert "\n" not in str(caught.value)


def test_k_is_held_against_labels_that_are_in_the_cache_or_in_a_file(tmp_path: Path) -> None:
    write_labelled(tmp_path / "c.jsonl", 4, 3)
    experiment = retrieval_on(tmp_path / "c.jsonl")
    folder = prepare_for(experiment, tmp_path)
    many = {"task.loss": "soft_top_k", "task.k": 9}
    with pytest.raises(UserError, match=r"task.k = 9 is not less than the \d labels; lower it"):
        prepare_for(experiment.updated(many), tmp_path)
    assert prepare_for(experiment.updated(many | {"task.k": 2}), tmp_path) == folder
    # The corpus is not even looked for.
    (tmp_path / "labels.csv").write_text("label,text\na,b\nc,d\n", encoding="utf-8")
    listed = {"task.label_file": str(tmp_path / "labels.csv"), "data.corpus": "absent.jsonl"}
    with pytest.raises(UserError, match=r"task.k = 9 is not less than the 2 labels; lower it"):
        prepare_for(experiment.updated(many | listed), tmp_path)


def test_what_does_not_fit_retrieval_is_one_sentence() -> None:
    model = {"architecture": "dual_encoder"}
    cases: list[tuple[dict[str, object], str]] = [
        ({"model": {}}, "model.architecture=si_cifg has outputs for words, and .* ranks labels"),
        ({"model": model | {"encoder": "dual_encoder"}}, "is no encoder of texts; expected one"),
        ({"model": model | {"layers": 3}}, "model.layers=3 has no effect"),
        (
            {"model": model | {"encoder": "cifg", "tied_output": True}},
            "tied_output=true has no",
        ),
        ({"model": model, "data": {"sequence_length": 1}}, "set data.sequence_length to 2 or more"),
        ({"model": model, "task": {"k": 3}}, "task.k=3 has no effect with task.loss=softmax"),
        (
            {"model": model, "task": {"loss": "soft_top_k", "negatives": "batch"}},
            "which a batch may not have",
        ),
        (
            {"model": model, "task": {"loss": "soft_top_k", "labels": 5}},
            "task.k = 5 is not less than task.labels = 5; lower it",
        ),
        (
            {
                "model": model,
                "task": {"negatives": "batch"},
                "client": {"example_noise_multiplier": 1.0},
                "server": {"averaging": "uniform"},
            },
            "needs a gradient of each example alone",
        ),
    ]
    for values, sentence in cases:
        task = {"name": "retrieval", **values.get("task", {})}  # type: ignore[dict-item]
        with pytest.raises(UserError, match=sentence):
            Experiment(**(values | {"task": task}))
    with pytest.raises(UserError, match="decoupled_softmax is softmax with"):
        Experiment(task={"loss": "decoupled_softmax"})


def test_emoji_are_labels_and_not_read() -> None:
    row = Row("a", "a", "see you \U0001f602 soon \u2764 \U0001f602!")
    assert SOURCES["emoji"](row, None) == ("see you soon !", ["\U0001f602", "\u2764\ufe0f"])
