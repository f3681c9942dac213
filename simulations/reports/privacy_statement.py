"""The privacy statement: a paragraph about a plan or a run, for a paper or an impact assessment."""

from dataclasses import dataclass

from fedsi.data.build_store import FILE
from fedsi.experiment.data import LEARNED_VOCABULARIES, PUBLIC
from fedsi.plan import Plan
from fedsi.privacy.accounting import PrivacyCost
from server.runs.summary import PrivacySummary

_SAMPLINGS = {
    "uniform": "a fixed number of clients is drawn without replacement",
    "poisson": "each client is drawn independently, with the same probability",
    "allocated": "each client draws its round of every pass over the clients independently",
    "cyclic": "clients of one of the groups that take turns are drawn independently",
    "shuffled": "clients are drawn in shuffled passes, so that their participations are apart",
}
_ON_AVERAGE = {"poisson", "allocated", "cyclic"}
_VOCABULARIES = {
    "": "the vocabulary, unless it is a public list",
    PUBLIC: "",
    FILE: "the vocabulary, unless the given list is public",
    **{
        learned: f"the vocabulary, which was learned from the clients' texts ({learned})"
        for learned in LEARNED_VOCABULARIES
    },
}
"""What of a vocabulary is not covered, by its source; empty for nothing."""
_NOT_COVERED = (
    "metrics, logs and counts of clients; that a run ended early; and the population's size, "
    "which is considered public"
)


@dataclass(frozen=True)
class Claim:
    """What a statement is made from."""

    epsilon: float | None
    """None if it is infinite."""
    delta: float
    rounds: int
    cohort_size: int
    population: int
    sampling: str
    mechanism: str
    noise_multiplier: float
    accountant: str
    adjacency: str
    seeded: bool
    """Whether noise and cohorts follow from a seed that somebody may know."""
    vocabulary: str = ""
    """Source of the vocabulary as in a run's summary; empty if it is unknown."""
    simulated: str = ""
    """Cohorts that were simulated instead of the accounted ones, in words."""


def claim_of_plan(plan: Plan, cost: PrivacyCost) -> Claim:
    """Return the claim of a plan, for a deployment that draws its randomness in secret."""
    return Claim(
        epsilon=None if cost.epsilon == float("inf") else cost.epsilon,
        delta=plan.delta,
        rounds=plan.rounds,
        cohort_size=plan.cohort_size,
        population=plan.population,
        sampling=plan.sampling,
        mechanism=plan.mechanism,
        noise_multiplier=plan.noise_multiplier,
        accountant=cost.accountant,
        adjacency=cost.adjacency,
        seeded=False,
    )


def claim_of_run(claim: PrivacySummary, *, seeded: bool, vocabulary: str = "") -> Claim:
    """Return the claim of a run.

    Args:
        claim: The claim in the run's summary.
        seeded: Whether noise and cohorts follow from the experiment's seed.
        vocabulary: Source of its vocabulary.
    """
    simulated = f"{claim.simulated_cohort_size:,} clients" if claim.extrapolated else ""
    return Claim(
        epsilon=claim.epsilon,
        delta=claim.delta,
        rounds=claim.accounted_rounds,
        cohort_size=claim.cohort_size,
        population=claim.population,
        sampling=claim.sampling,
        mechanism=claim.mechanism,
        noise_multiplier=claim.noise_multiplier,
        accountant=claim.accountant,
        adjacency=claim.adjacency,
        seeded=seeded,
        vocabulary=vocabulary,
        simulated=simulated,
    )


def privacy_statement(claim: Claim) -> str:
    """Return the statement: unit, adjacency, mechanism, accountant, trust, and what is left out."""
    if claim.epsilon is None:
        return (
            "The training is not differentially private: updates are clipped, but no noise is "
            "added, so epsilon is infinite."
        )
    uncovered = (
        "the choice of settings by runs on the same clients",
        _VOCABULARIES.get(claim.vocabulary, ""),
        _NOT_COVERED,
    )
    sentences = [
        f"The training satisfies differential privacy with epsilon = {claim.epsilon:.4g} at delta "
        f"= {claim.delta:.3g}. The unit of privacy is one client with all of its data; "
        f"neighbouring populations differ in one client (adjacency: {claim.adjacency}).",
        f"In each of {claim.rounds:,} rounds {_SAMPLINGS[claim.sampling]}, {claim.cohort_size:,} "
        f"of {claim.population:,} clients per round"
        f"{' on average' if claim.sampling in _ON_AVERAGE else ''}.",
        "Each client's update is clipped to a fixed L2 norm. Noise of the mechanism "
        f"{claim.mechanism} with noise multiplier {claim.noise_multiplier:.4g}, relative to that "
        "norm, is added once to the sum of the updates, which is divided by the expected number of "
        "clients. Everything after that is post-processing.",
        f"Epsilon covers the models of all rounds and was computed by the accountant "
        f"{claim.accountant}.",
        "Trusted are the server, which sees the updates before noise is added, and the clients' "
        f"software. Not covered: {'; '.join(filter(None, uncovered))}.",
    ]
    if claim.simulated:
        sentences.append(
            f"The training was a simulation with cohorts of {claim.simulated}; the statement is "
            "about the larger deployment it stands for, not about the simulated clients."
        )
    if claim.seeded:
        sentences.append(
            "Noise and cohorts of the simulation follow from its seed; the statement holds towards "
            "those who do not know the seed (privacy.secure_noise=true draws both in secret)."
        )
    return " ".join(sentences)
