"""The page of an audit: the verdict on a claim of privacy, and what it stands on."""

from pathlib import Path

from fedsi.privacy.audit import (
    CONFIDENCE,
    COUNTING,
    CURVE,
    ERRORS,
    GAUSSIAN,
    PARTICIPATIONS,
    ROUNDS,
)
from server.runs.folder import SUMMARY, RunFolder
from server.runs.summary import AuditSummary, PrivacySummary, Summary
from simulations.kept_results import kept_membership
from simulations.membership import Membership
from simulations.reports.audit import FIGURE, audit_figure
from simulations.reports.commands import audit_command
from simulations.reports.figures import label
from simulations.reports.page import (
    Illustration,
    Page,
    PageTable,
    day_of,
    panels_of,
    write_page,
)
from simulations.reports.run import facts_of, finished_summary, told_how_repeatable

AUDIT_PAGE = "audit.html"
FILES = ("summary.json", "canaries.csv", f"{FIGURE}.png", f"{FIGURE}.svg", "model.safetensors")


def write_audit_page(folder: Path) -> None:
    """Write the page of an audited run from what its folder holds.

    Raises:
        UserError: The run was not audited, or a file is damaged.
    """
    run = RunFolder(folder)
    page = audit_page(run, finished_summary(run), kept_membership(folder))
    write_page(page, folder, AUDIT_PAGE)


def audit_page(run: RunFolder, summary: Summary, attack: Membership | None) -> Page:
    """Return the page of an audited run.

    Args:
        run: The run's folder.
        summary: Its summary, with the result of the audit.
        attack: The attack on its model; None if it is unknown who took part.
    """
    claim, experiment = summary.privacy, run.experiment()
    if claim is None or claim.audit is None:
        raise ValueError("a run without an audit has no page of one")
    found, name = claim.audit, label(summary.architecture)
    figure = audit_figure(*run.canaries(), claim.epsilon, found)
    return Page(
        title=f"Audit of {name} on {summary.corpus}",
        kind="Audit",
        date=day_of(run.path / SUMMARY),
        verdict=_verdict(claim, found, attack),
        experiment=experiment,
        figures=[
            Illustration(
                panels_of(figure),
                "How far the releases went along each canary's direction, in clip norms, for "
                "canaries that took part and for those that did not. Dashed lines are the means. "
                "The further the two groups are apart, the more the releases show.",
            )
        ],
        tables=[_bounds(claim, found), _attack(attack), _canaries(found)],
        methods=[*_methods(summary, claim, found), told_how_repeatable(experiment)],
        command=audit_command(experiment),
        files=FILES,
        facts=facts_of(summary),
    )


def _verdict(claim: PrivacySummary, found: AuditSummary, attack: Membership | None) -> list[str]:
    claimed = "infinite" if claim.epsilon is None else f"{claim.epsilon:.3f}"
    bound, sure = found.bound, f"{100 * CONFIDENCE:.0f} % confidence"
    what = f"The claim of epsilon {claimed} at delta {claim.delta:.2g}"
    if found.refuted and not found.participations_fit:
        first = f"{what} is REFUTED: clients took part more often than it accounts for."
    elif found.refuted:
        first = f"{what} is REFUTED: the run costs at least epsilon {bound:.3f}, with {sure}."
    else:
        first = (
            f"{what} is not refuted: the largest lower bound is epsilon {bound:.3f}, with {sure}."
        )
    second = (
        "The run is less private than claimed, and its claim must not be used."
        if found.refuted
        else "This does not prove the claim, because a better attack might find more."
    )
    sentences = [first, second]
    if attack is not None and attack.has_enough:
        sentences.append(
            f"Guessing from the model's losses who took part has an AUC of {attack.auc:.3f} ± "
            f"{1.96 * attack.auc_error:.3f} (95 % interval), where 0.5 is a coin toss."
        )
    return sentences


def _bounds(claim: PrivacySummary, found: AuditSummary) -> PageTable:
    claimed = "infinite" if claim.epsilon is None else f"{claim.epsilon:.3f}"
    curve = "none" if found.curve_epsilon is None else f"{found.curve_epsilon:.3f}"
    rows = [
        ["claimed", claimed, "", "", f"accounting ({claim.accountant})"],
        ["means of sums", f"{found.gaussian_epsilon:.3f}", _error(GAUSSIAN), "", "normal scores"],
        ["guesses on sums, whole curve", curve, _error(CURVE), _right(found.correct, found),
         "fair coins; refutes the claim at some delta"],
        ["guesses on sums, one delta", f"{found.counting_epsilon:.3f}", _error(COUNTING),
         _right(found.correct, found), "fair coins"],
        ["guesses on single rounds", f"{found.rounds_epsilon:.3f}", _error(ROUNDS),
         _right(found.rounds_correct, found), "fair coins; refutes the claim at some delta"],
    ]  # fmt: skip
    return PageTable(
        "Claim and lower bounds",
        ["", "epsilon", "error", "guesses right", "rests on"],
        rows,
        f"The largest bound, from {found.bound_from}, holds with {100 * CONFIDENCE:.0f} % "
        "confidence, because each check has a share of the error probability that was fixed before "
        f"the run; the check of participations has {_error(PARTICIPATIONS)}.",
    )


def _error(name: str) -> str:
    return f"{100 * ERRORS[name]:.2g} %"


def _right(correct: int, found: AuditSummary) -> str:
    return f"{correct:,} of {found.guesses:,}"


def _attack(attack: Membership | None) -> PageTable:
    if attack is None:
        return PageTable(
            "Attack on the model", ["", "value"], [],
            "There is none: who took part in a run with secure noise is unknown.",
        )  # fmt: skip
    if not attack.has_enough:
        return PageTable(
            "Attack on the model", ["", "value"], [],
            f"There is none: {attack.members:,} clients took part and {attack.others:,} are held "
            "out, which are too few.",
        )  # fmt: skip
    rows = [
        ["clients that took part", f"{attack.members:,}"],
        ["held-out clients", f"{attack.others:,}"],
        ["AUC", f"{attack.auc:.3f}"],
        ["standard error of the AUC", f"{attack.auc_error:.3f}"],
        ["advantage", f"{attack.advantage:.3f}"],
        ["difference in loss, nats per token", f"{attack.loss_gap:+.3f}"],
    ]
    return PageTable(
        "Attack on the model",
        ["", "value"],
        rows,
        "Clients whose text the model predicts better are guessed to have taken part (arXiv "
        "1709.01604). The AUC is the share of pairs that this gets right, and the advantage is the "
        "largest difference between the shares of right and of wrong alarms.",
    )


def _canaries(found: AuditSummary) -> PageTable:
    rows = [
        ["took part", f"{found.included:,}", f"{found.mean_in:.3f}",
         f"{found.deviation_in:.3f}"],
        ["did not", f"{found.canaries - found.included:,}", f"{found.mean_out:.3f}",
         f"{found.deviation_out:.3f}"],
    ]  # fmt: skip
    return PageTable("Canaries", ["", "canaries", "mean score", "standard deviation"], rows)


def _methods(summary: Summary, claim: PrivacySummary, found: AuditSummary) -> list[str]:
    fit = (
        "Clients took part as often as is accounted for."
        if found.participations_fit
        else "Clients took part MORE often than is accounted for (probability "
        f"{found.participations_likelihood:.2g} at the claimed rate)."
    )
    return [
        f"{found.canaries:,} canaries, of which a coin chose {found.included:,}, sent a random "
        "direction as their update. The sum of what the run released along a canary's direction is "
        "its score; it is weighted for the noise if the claim lets everybody know its rounds. From "
        "the scores epsilon is bounded (arXiv 2302.03098, 2305.08846, 2410.22235, 2606.12733).",
        f"The run had {summary.rounds:,} rounds with {claim.mechanism} noise, multiplier "
        f"{claim.noise_multiplier:.3g}, and {claim.sampling} cohorts of {claim.cohort_size:,} from "
        f"{claim.population:,} clients. {fit}",
    ]
