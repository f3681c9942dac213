"""The decision of a run for matrix products, made when it starts and then part of its experiment.

``client.products`` leaves it open with ``auto`` and ``fastest``. The bits of every round depend on
it, so it is written into the experiment that a run stores and that every request carries.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsi.checksums import sealed, unsealed
from fedsi.data.cache import DEFAULT_CACHE, cache_folder
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.experiment.client import UNDECIDED
from fedsi.files import write_atomically
from fedsi.tasks.table import trained_by_hand
from server.runs.provenance import machine_facts

if TYPE_CHECKING:
    from fedsi.learning.product_times import ProductTime

KEY = "client.products"


def decided(
    experiment: Experiment, begun: Experiment | None = None, cache: Path = DEFAULT_CACHE
) -> Experiment:
    """Return the experiment with ``client.products`` decided, if it matters and is left open.

    Args:
        experiment: The configuration that is asked for.
        begun: That of the run that is resumed, whose decision holds; None for a new run.
        cache: Folder for the measurement.
    """
    client = experiment.client
    if client.products not in UNDECIDED or not trained_by_hand(experiment):
        return experiment
    if begun is not None:
        return with_known_products(experiment, begun)
    # Imported here because it loads the compiler, as the provenance does.
    from fedsi.kernels.cpu.product_choice import OWN, products_of  # noqa: PLC0415

    chosen = products_of(client)
    if client.products == "fastest" and chosen == OWN and client.precision == "float32":
        chosen = faster(product_times(experiment, cache))
    return experiment.updated({KEY: chosen})


def with_known_products(experiment: Experiment, begun: Experiment) -> Experiment:
    """Return the experiment with the products of a run of it, if it leaves them open."""
    if experiment.client.products not in UNDECIDED or not trained_by_hand(experiment):
        return experiment
    return experiment.updated({KEY: begun.client.products})


def product_times(experiment: Experiment, cache: Path = DEFAULT_CACHE) -> "list[ProductTime]":
    """Return the times of products in a step of an experiment's model on this machine.

    They are measured once and kept in the cache folder; a damaged file is measured anew.

    Args:
        experiment: The configuration.
        cache: The folder.
    """
    from fedsi.learning.product_times import ProductTime, measure_products  # noqa: PLC0415

    facts = _facts(experiment)
    name = sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder(cache) / f"products-{name}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        rows = unsealed(path.read_bytes())["times"]
        return [ProductTime(tuple(row["shape"]), row["own"], row["torch"]) for row in rows]
    times = measure_products(experiment)
    with suppress(OSError, UserError):  # it is measured again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, sealed({"facts": facts, "times": [asdict(one) for one in times]}))
    return times


def faster(times: "Sequence[ProductTime]") -> str:
    """Return the kind of products, ``own`` or ``torch``, that takes a step less time."""
    own, torch = (sum(getattr(one, kind) for one in times) for kind in ("own", "torch"))
    return "own" if own <= torch else "torch"


def _facts(experiment: Experiment) -> Mapping[str, Any]:
    """Return what the times depend on: the machine, and the sizes of a step."""
    return {
        **machine_facts(),
        "threads": 1,
        "model": experiment.model.model_dump(mode="json"),
        "task": experiment.task.name,
        "vocabulary": experiment.data.vocabulary_size,
        "texts": experiment.client.batch_size,
        "length": experiment.data.sequence_length,
    }
