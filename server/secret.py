"""The secret that decides who takes part in a run with secure noise.

Amplification by sampling protects a client against whoever does not know in which rounds it took
part. If cohorts followed from the experiment's seed, which is in the run's files, everybody who
reads these would know. So a run with ``privacy.secure_noise`` draws its cohorts, and all else that
decides who takes part, with 32 bytes from the operating system. A resumed run needs them, because
shuffled passes have one permutation for all rounds; at the run's end they are forgotten.
"""

import os

from fedsi.experiment import Experiment
from fedsi.seeds import Seed
from server.runs.folder import RunFolder

BYTES = 32


def cohort_seed(experiment: Experiment, folder: RunFolder | None, rounds_before: int) -> Seed:
    """Return what decides who takes part: the experiment's seed, or the run's secret.

    Args:
        experiment: The configuration.
        folder: Keeps the secret while the run is not finished; None to have it in memory only.
        rounds_before: Rounds that the run has released already, with the secret in its folder.

    Raises:
        UserError: The secret of these rounds is missing or damaged, or cannot be written.
    """
    if not experiment.privacy.secure_noise:
        return experiment.seed
    if folder and rounds_before:
        return folder.secret()
    secret = os.urandom(BYTES)
    if folder:
        folder.save_secret(secret)
    return secret
