"""Warnings about settings that are valid but rarely intended, with the usual value."""

from fedsi.data.population import Description
from fedsi.experiment import Experiment
from fedsi.plan import close_participations, large_delta, usual_delta
from fedsi.schedule import Schedule

FAR = 1.5
"""Ratio of two shares from which they are reported as different."""


def cautions(experiment: Experiment, description: Description) -> list[str]:
    """Return the warnings to show before the first round.

    Args:
        experiment: The experiment about to run.
        description: The description of its population.
    """
    found = [
        _heldout(experiment, description),
        _still_rounds(experiment, "server", experiment.server.learning_rate_schedule),
        _still_rounds(experiment, "client", experiment.client.learning_rate_schedule),
    ]
    private = privacy_cautions(experiment, description.training_clients)
    return [*(sentence for sentence in found if sentence), *private]


def privacy_cautions(experiment: Experiment, clients: int) -> list[str]:
    """Return the warnings about an experiment's privacy.

    Args:
        experiment: An experiment, which need not be private.
        clients: Number of clients that can take part; ``privacy.population`` replaces it.
    """
    privacy = experiment.privacy
    if privacy.mechanism == "none":
        return []
    population = privacy.population or clients
    found = [
        large_delta(privacy.delta or usual_delta(population), population),
        _close(experiment, clients),
    ]
    return [sentence for sentence in found if sentence]


def _close(experiment: Experiment, clients: int) -> str | None:
    privacy, server = experiment.privacy, experiment.server
    apart = server.sampling != "shuffled" or server.min_separation is not None
    if apart or privacy.noise_multiplier == 0:
        return None
    simulated = clients // server.cohort_size
    accounted = (privacy.population or clients) // (privacy.cohort_size or server.cohort_size)
    return close_participations(privacy.mechanism, min(simulated, accounted), server.rounds)


def _still_rounds(experiment: Experiment, section: str, schedule: Schedule) -> str | None:
    rounds = experiment.server.rounds
    still = [number for number, factor in enumerate(schedule.factors(rounds), 1) if factor == 0]
    if not still:
        return None
    costs = " but costs privacy" if experiment.privacy.mechanism != "none" else ""
    return (
        f"round {still[0]} of {rounds} has the {section} learning rate 0 "
        f"({section}.schedule={schedule.kind}) and changes nothing{costs}; it is usual to end at a "
        f"small share of the rate, such as {section}.final_fraction=0.01"
    )


def _heldout(experiment: Experiment, description: Description) -> str | None:
    data = experiment.data
    if data.heldout_split is not None or data.partition != "natural":
        return None  # the share is the corpus's own, or the clients are others
    if data.heldout_by == "sentences":
        what, held = "sentences", description.heldout_examples
        trained = description.training_examples
    else:
        what, held = "clients", description.heldout_clients
        trained = description.training_clients
    share = held / max(1, held + trained)
    if not held or data.heldout_fraction / FAR < share < data.heldout_fraction * FAR:
        return None
    # At least one client is held out, whatever the groups.
    by = "clients" if held == 1 and data.heldout_by == "groups" else data.heldout_by
    why = {
        "groups": "groups are held out whole, which data.heldout_by=clients changes",
        "clients": "a client is held out or not",
        "sentences": "they are drawn one by one",
    }[by]
    return (
        f"{100 * share:.1f} % of the {what} ({held:,} of {held + trained:,}) are held out, not "
        f"{100 * data.heldout_fraction:.3g} % as data.heldout_fraction says: {why}"
    )
