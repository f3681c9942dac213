"""The secret that decides who takes part in a run with secure noise.

Amplification by sampling protects a client only if its rounds are unknown. If cohorts followed from
the experiment's seed, which is in the run's files, everybody who reads these would know them. So a
run with ``privacy.secure_noise`` draws its cohorts, and everything else that decides who takes
part, from 32 bytes of the operating system's entropy. A resumed run needs them, because shuffled
passes use one permutation for all rounds; they are deleted at the end of the run.
"""

import os

from fedsi.experiment import Experiment
from fedsi.seeds import Seed
from server.runs.folder import RunFolder

BYTES = 32


def cohort_seed(experiment: Experiment, folder: RunFolder | None, rounds_before: int) -> Seed:
    """Return the seed that decides who takes part: the experiment's, or the run's secret.

    Args:
        experiment: The configuration.
        folder: Keeps the secret until the run is finished; None to keep it in memory only.
        rounds_before: Number of rounds already released, with the secret in the run's folder.

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
