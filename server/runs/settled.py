"""What an experiment leaves open until its run starts: hashes of files, and matrix products."""

from pathlib import Path

from fedsi.data.cache import DEFAULT_CACHE
from fedsi.experiment import Experiment
from server.products import decided, with_known_products
from server.runs.folder import EXPERIMENT, RunFolder
from server.warm_start import with_hash, with_known_hash


def settled(
    experiment: Experiment,
    folder: RunFolder | None,
    *,
    resume: bool,
    cache: Path = DEFAULT_CACHE,
) -> Experiment:
    """Return the experiment as its run stores it and sends it to nodes.

    Args:
        experiment: The configuration that is asked for.
        folder: The run's folder.
        resume: Whether the run in the folder is resumed, whose decisions hold.
        cache: Folder for measurements.

    Raises:
        UserError: A file that the experiment names is missing, or is not the one it was written
            for; or the run that is resumed is damaged.
    """
    goes_on = resume and folder is not None and (folder.path / EXPERIMENT).exists()
    begun = folder.experiment() if folder and goes_on else None
    return decided(with_hash(experiment), begun, cache)


def settled_as(experiment: Experiment, begun: Experiment) -> Experiment:
    """Return the experiment with what a run of it settled; what it settles itself is kept."""
    return with_known_products(with_known_hash(experiment, begun), begun)
