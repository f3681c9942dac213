"""The table of tasks: modules that end with their ``TASK``."""

from typing import TYPE_CHECKING

from fedsi.errors import UserError
from fedsi.models.table import ARCHITECTURES, BY_HAND, architecture
from fedsi.tables import Table, refuse_without_effect

if TYPE_CHECKING:
    from fedsi.data.generated import Generation
    from fedsi.data.population import Population
    from fedsi.experiment import Experiment
    from fedsi.tasks.task import Task

DATA_KEYS = frozenset(
    {"population", "population_seed", "heldout_fraction", "max_examples_per_client"}
)
"""The keys ``data.*`` that matter to a task which makes its own examples."""
GENERATED_KEYS = frozenset(
    {"shortest", "longest", "law", "exponent", "examples", "fresh", "grid", "grid_examples"}
)
"""The keys ``task.*`` of every task that makes its own examples."""

LABEL_KEYS = frozenset(
    {"loss", "k", "labels", "label_source", "label_separator", "label_file", "negatives"}
)
"""The keys ``task.*`` of a task whose examples have labels."""

TASKS: "Table[Task]" = Table(
    "task.name",
    "fedsi.tasks.task:Task",
    "TASK",
    {
        "next_word": "fedsi.tasks.next_word",
        "arithmetic": "fedsi.tasks.arithmetic",
        "copy": "fedsi.tasks.copy",
        "reverse": "fedsi.tasks.copy",
        "recall": "fedsi.tasks.recall",
        "retrieval": "fedsi.tasks.retrieval",
    },
    own="a Task of yours",
)


def task_of(experiment: "Experiment") -> "Task":
    """Return the task of an experiment; functions of the user's own are checked at each call.

    Raises:
        UserError: The task is the user's, and is not found or contradicts itself.
    """
    name = experiment.task.name
    task = TASKS[name]
    if TASKS.is_own(name):
        # What checks it needs PyTorch, which looking at the names must not load.
        from fedsi.tasks.user_task import checked_task  # noqa: PLC0415

        task = checked_task(name, task)
    return task.configured(experiment.task) if task.configured else task


def generation_of(name: str) -> "Generation | None":
    """Return how a task makes its examples, the user's own checked; None if it makes none."""
    found = TASKS[name].generation
    if found is None or not TASKS.is_own(name):
        return found
    from fedsi.tasks.user_task import checked_generation  # noqa: PLC0415 - it needs PyTorch

    return checked_generation(name, found)


def task_on(experiment: "Experiment", population: "Population") -> "Task":
    """Return the task of an experiment on the examples of a population.

    Raises:
        UserError: As ``task_of``.
    """
    task = task_of(experiment)
    return task.bound(experiment.task, population.answers) if task.bound else task


def task_keys(name: str) -> frozenset[str]:
    """Return the keys ``task.*`` that a built-in task uses, apart from ``name``."""
    task = TASKS[name]
    return task.keys | (GENERATED_KEYS if task.generation else frozenset())


def reads_a_corpus(name: str) -> bool:
    """Return whether the examples may come from a corpus; custom tasks are not imported here."""
    if name == "next_word" or TASKS.is_own(name):
        return True  # the default need not be loaded with PyTorch
    return TASKS[name].generation is None


def check_keys(experiment: "Experiment") -> None:
    """Refuse keys of the task and of the data that the task does not use.

    A custom task, which is not imported here, may use all of them.

    Raises:
        ValueError: A key has no effect.
    """
    name, task, data = experiment.task.name, experiment.task, experiment.data
    by_default = type(task).model_fields["name"].default
    if TASKS.is_own(name) or task == type(task)(name=by_default):
        return  # the default makes no examples of its own, and need not be loaded with PyTorch
    refuse_without_effect(task, "task", task_keys(name), "name")
    _check_labels(experiment)
    if TASKS[name].generation:
        for key, field in type(data).model_fields.items():
            if key not in DATA_KEYS and getattr(data, key) != field.default:
                raise ValueError(
                    f"data.{key} has no effect with task.name={name}, which makes its own "
                    "examples; leave it out"
                )


def _check_labels(experiment: "Experiment") -> None:
    """Refuse what does not fit a task with labels, or needs one.

    Raises:
        ValueError: The architecture does not rank labels, or the clients have too little to read or
            to compare.
    """
    name, task = experiment.task.name, experiment.task
    if TASKS[name].bound is None:
        if task.loss == "decoupled_softmax":
            raise ValueError(
                f"task.loss=decoupled_softmax is softmax with task.name={name}, whose targets have "
                "one right value each; set task.loss=softmax"
            )
        return
    ranking = [one for one in ARCHITECTURES if ARCHITECTURES[one].ranks_labels]
    if experiment.model.architecture not in ranking:
        raise ValueError(
            f"model.architecture={experiment.model.architecture} has outputs for words, and "
            f"task.name={name} ranks labels; set model.architecture={' or '.join(ranking)} (with "
            "model.label_encoder=table it is a classifier with one row a label)"
        )
    if experiment.data.sequence_length < 2 or experiment.data.long_texts == "split":
        raise ValueError(
            f"task.name={name} reads a text as one query of at least one word; set "
            "data.sequence_length to 2 or more and data.long_texts=cut"
        )
    if task.loss == "soft_top_k" and task.k >= task.labels:
        raise ValueError(
            f"task.k = {task.k} is not less than task.labels = {task.labels}; lower it"
        )
    if task.negatives == "batch" and experiment.client.example_noise_multiplier is not None:
        raise ValueError(
            "task.negatives=batch compares the examples of a batch with each other, and "
            "client.example_noise_multiplier needs a gradient of each example alone; set "
            "task.negatives=all"
        )


def trained_by_hand(experiment: "Experiment") -> bool:
    """Whether gradients by hand train the model of an experiment, or the task's losses allow it."""
    entry, client = architecture(experiment.model.architecture), experiment.client
    one_by_one = client.step == "one_by_one" and client.example_noise_multiplier is None
    if entry.by_hand is None or not one_by_one or experiment.task.loss != "softmax":
        return False
    by_autograd, streams = entry.by_autograd, task_of(experiment).streams
    return by_autograd is None or not by_autograd(experiment.model, streams)


def check_task(experiment: "Experiment", vocabulary_size: int) -> None:
    """Try out a task of the user's own before the first round.

    Raises:
        UserError: One of its functions fails, or cannot be used, or the clients' training takes no
            position ids.
    """
    name, client = experiment.task.name, experiment.client
    loss, k = experiment.task.loss, experiment.task.k
    if loss == "soft_top_k" and task_of(experiment).bound is None and k >= vocabulary_size:
        raise UserError(
            f"task.k = {k} is not less than the {vocabulary_size} ids of the vocabulary; lower it"
        )
    for key, usual in BY_HAND.items():
        value = getattr(client, key)
        if value == usual or trained_by_hand(experiment):
            continue
        if loss != "softmax":
            raise UserError(
                f"client.{key}={value} needs gradients by hand, which task.loss={loss} does not "
                f"have; set client.{key}={usual}"
            )
        raise UserError(
            f"client.{key}={value} needs gradients by hand, but autograd trains a Transformer with "
            "position ids, model.random_start, model.activation=geglu, model.norms=around or a "
            f"model.feedforward that is not dense; set client.{key}={usual}"
        )
    private, together = client.example_noise_multiplier is not None, client.step == "vectorised"
    if (private or together) and (task_of(experiment).streams or experiment.model.random_start):
        given = "client.example_noise_multiplier" if private else "client.step=vectorised"
        raise UserError(
            f"{given} takes no position ids; set task.ids=ordinary and model.random_start=false, "
            "or leave it out"
        )
    if TASKS.is_own(name):
        from fedsi.tasks.user_task import try_task  # noqa: PLC0415

        try_task(name, task_of(experiment), vocabulary_size, experiment.task)
