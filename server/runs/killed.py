"""Recovery of a run that was killed before it had begun."""

import tomllib
from pathlib import Path

from fedsi.errors import DamagedError, UserError
from fedsi.experiment import Experiment


def unlisted_experiment(path: Path) -> Experiment:
    """Read the experiment of a run that was killed before its hash was written.

    A run writes all sections; a file without some of them would be read as another experiment.

    Args:
        path: The file.

    Raises:
        UserError: It is missing or damaged.
    """
    if not path.exists():
        raise UserError(
            f"{path.parent} holds no run to resume; name its folder with --out, or name the "
            "experiment that is to start there"
        )
    experiment = Experiment.from_file(path)
    if not Experiment.model_fields.keys() <= tomllib.loads(path.read_text("utf-8")).keys():
        raise DamagedError(
            f"{path} is damaged: it is not a whole experiment; start again with --overwrite, or "
            "name another folder with --out"
        )
    return experiment
