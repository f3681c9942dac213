"""``fedsi audit``: test the privacy claim of a run."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsi.errors import UserError
from simulations.cli import options
from simulations.cli.display import Display
from simulations.cli.foreign_output import others_to_stderr
from simulations.cli.run import shown_on
from simulations.cli.wide_table import print_facts
from simulations.safe_text import one_line, typed

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from server.runs.summary import AuditSummary, PrivacySummary
    from simulations.membership import Membership

CANARIES = 400
"""Number of canaries for an experiment that has none."""


def audit(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="A finished run with canaries.", show_default=False),
    ] = None,
    experiment_file: Annotated[
        Path | None,
        typer.Option("--experiment", metavar="EXPERIMENT.toml", help="Run this, with canaries."),
    ] = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    out: options.Out = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
    trust: options.Trust = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Compare a run's claimed epsilon with its canaries, and attack its model.

    Without a run, one is made: the preset ``audit`` unless an experiment is named. The exit code is
    1 if the claim is refuted.
    """
    from server.runs.folder import RunFolder
    from server.runs.summary import to_json
    from simulations.kept_results import keep_membership
    from simulations.membership import membership_of
    from simulations.reports.audit import write_audit
    from simulations.reports.audit_page import AUDIT_PAGE, write_audit_page
    from simulations.reports.run import write_run_page

    if run and (experiment_file or preset or overrides or out):
        raise UserError(f"give either a finished run ({run}) or an experiment to run, not both")
    usual = None if experiment_file or preset else "audit"
    folder = run or out or options.default_folder("audit")
    if not run:
        base = options.chosen_experiment(experiment_file, preset or usual, overrides, trust=trust)
        _run(_with_canaries(base), folder, cache, overwrite=overwrite)
    claim, audited = _claim(folder)
    if run:
        options.experiment_of_run(run, trust=trust)
    with others_to_stderr():  # a user's model may print
        membership = membership_of(RunFolder(folder), cache)
    keep_membership(membership, folder)
    write_audit(claim.epsilon, audited, folder)
    if not run:
        write_run_page(folder)
    write_audit_page(folder)
    if as_json:
        found = {**to_json(claim), "membership": asdict(membership) if membership else None}
        typer.echo(json.dumps(found, allow_nan=False))
    else:
        print_facts(options.output(), "Audit", _facts(claim, audited, membership))
    options.messages().print(
        f"report: {one_line(str(folder / AUDIT_PAGE))}", highlight=False, soft_wrap=True
    )
    if audited.refuted:
        raise options.StoppedError("the claimed epsilon is refuted: the run is less private")


def _with_canaries(base: "Experiment") -> "Experiment":
    if base.privacy.mechanism == "none":
        raise UserError(
            "privacy.mechanism = none claims nothing that could be audited; choose gaussian, tree, "
            "banded or blt"
        )
    return base if base.privacy.canaries else base.updated({"privacy.canaries": CANARIES})


def _run(experiment: "Experiment", folder: Path, cache: Path, *, overwrite: bool) -> None:
    from simulations.simulation import simulate

    try:
        with Display(options.messages()) as display:
            simulate(
                experiment,
                out=folder,
                cache=cache,
                overwrite=overwrite,
                on_corpus=partial(display.corpus, experiment),
                on_round=shown_on(display),
                progress=display.step,
            )
    except KeyboardInterrupt:
        raise options.StoppedError(
            f"interrupted; continue with: fedsi run --resume --out {typed(folder)}, then "
            f"fedsi audit {typed(folder)}"
        ) from None


def _claim(folder: Path) -> "tuple[PrivacySummary, AuditSummary]":
    """Return what a run claims, and what its canaries showed of that.

    Raises:
        UserError: The folder holds no finished run, or one that cannot be audited.
    """
    from server.runs.folder import EXPERIMENT, RunFolder

    summary = RunFolder(folder).summary()
    if summary is None:
        advice = (
            f"finish it with: fedsi run --resume --out {typed(folder)}"
            if (folder / EXPERIMENT).exists()
            else "name the folder of one"
        )
        raise UserError(f"{folder} holds no finished run; {advice}")
    claim = summary.privacy
    if claim is None:
        raise UserError(f"the run in {folder} is not private: it claims nothing to audit")
    if claim.audit is None:
        raise UserError(
            f"the run in {folder} had no canaries; run it again with --set privacy.canaries=400"
        )
    return claim, claim.audit


def _facts(
    claim: "PrivacySummary", audited: "AuditSummary", membership: "Membership | None"
) -> dict[str, str]:
    from fedsi.privacy.audit import CONFIDENCE

    claimed = "infinite" if claim.epsilon is None else f"{claim.epsilon:.3f}"
    return {
        "claimed epsilon": f"{claimed} at delta {claim.delta:.3g} ({claim.accountant})",
        "lower bound": f"{audited.bound:.3f}, with {100 * CONFIDENCE:.0f} % confidence",
        "why it is valid": (
            f"it is the largest, from {audited.bound_from}; each check has a share of the error, "
            "fixed before the run"
        ),
        **{f"bound from {name}": text for name, text in _bounds(audited).items()},
        "participations": (
            "as often as accounted for"
            if audited.participations_fit
            else "MORE than accounted for (probability "
            f"{audited.participations_likelihood:.2g} at the claimed rate)"
        ),
        "canaries": f"{audited.canaries}, of which {audited.included} took part",
        "mean score in, out": (
            f"{audited.mean_in:.3f}, {audited.mean_out:.3f} (deviation {audited.deviation_out:.3f})"
        ),
        "claim": "REFUTED" if audited.refuted else "not refuted",
        "membership attack on the model": _attacked(membership),
    }


def _bounds(audited: "AuditSummary") -> dict[str, str]:
    """Return each bound with what it stands on, by its name."""
    from fedsi.privacy.audit import COUNTING, CURVE, ERRORS, GAUSSIAN, ROUNDS

    rows: dict[str, tuple[float | None, str]] = {
        GAUSSIAN: (audited.gaussian_epsilon, "if scores are normal"),
        CURVE: (audited.curve_epsilon, f"{audited.correct} of {audited.guesses} guesses right"),
        COUNTING: (audited.counting_epsilon, "the same guesses, for this delta alone"),
        ROUNDS: (
            audited.rounds_epsilon, f"{audited.rounds_correct} of {audited.guesses} guesses right"
        ),
    }  # fmt: skip
    return {
        name: "none: nothing is claimed"
        if bound is None
        else f"{bound:.3f} (error {100 * ERRORS[name]:.2g} %; {basis})"
        for name, (bound, basis) in rows.items()
    }


def _attacked(membership: "Membership | None") -> str:
    if membership is None:
        return "none: it is unknown who took part in a run with secure noise"
    if not membership.has_enough:
        return (
            f"none: too few clients ({membership.members} took part, {membership.others} are held "
            "out)"
        )
    return (
        f"AUC {membership.auc:.3f} +- {membership.auc_error:.3f}, advantage "
        f"{membership.advantage:.3f} ({membership.members} members, "
        f"{membership.others} held-out clients)"
    )
