"""What a trade-off found, in sentences and in a table, computed from its results alone."""

from simulations.reports.figures import label
from simulations.reports.findings import (
    design,
    enumerate_words,
    loss_text,
    no_better_than_counting,
    seeds_caveat,
)
from simulations.reports.tradeoff_figure import number
from simulations.studies.grid import ACCURACY, Setting
from simulations.studies.tradeoff import Tradeoff


def tradeoff_findings(tradeoff: Tradeoff) -> list[str]:
    """Return sentences that say what this trade-off found, and nothing more."""
    return [
        design(tradeoff),
        _claim(tradeoff),
        *_extrapolation(tradeoff),
        *_leads(tradeoff),
        *(_price(tradeoff, name) for name in tradeoff.architectures),
        _divergence(tradeoff),
        *no_better_than_counting(
            {
                f"{_label(setting)} at epsilon {number(level.epsilon)}": setting.loss
                for place, level in enumerate(tradeoff.levels)
                for setting in tradeoff.at_level(place)
            },
            tradeoff.summary.unigram_loss,
        ),
        _caveat(tradeoff),
    ]


def tradeoff_table(tradeoff: Tradeoff) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the trade-off's table, as text: a row for each level."""
    header = ["epsilon", "noise multiplier", "noise on the mean"]
    for name in tradeoff.architectures:
        header += [f"{label(name)} loss", "accuracy"]
    rows = []
    for place, level in enumerate(tradeoff.levels):
        row = [number(level.epsilon), number(level.noise_multiplier), number(level.noise_on_mean)]
        for setting in tradeoff.at_level(place):
            accuracy = f"{setting.mean(ACCURACY):.3f}" if setting.measured else ""
            row += [loss_text(setting), accuracy]
        rows.append(row)
    return header, rows


def _claim(tradeoff: Tradeoff) -> str:
    privacy = tradeoff.privacy
    return (
        f"Epsilon is of all rounds for delta {privacy.delta:.2g}, by the "
        f"{privacy.accountant} accountant for {privacy.adjacency}, with the "
        f"{privacy.mechanism} mechanism and {privacy.sampling} sampling of "
        f"{privacy.cohort_size:,} from {privacy.population:,} clients."
    )


def _extrapolation(tradeoff: Tradeoff) -> list[str]:
    privacy, clients = tradeoff.privacy, tradeoff.summary.training_clients
    if not privacy.extrapolated:
        return []
    return [
        f"This is an extrapolation: cohorts of {privacy.simulated_cohort_size:,} from "
        f"{clients:,} clients were simulated and stand for cohorts of "
        f"{privacy.cohort_size:,} from {privacy.population:,}, with the noise on the mean "
        "that those would have. Epsilon is theirs; for the clients that were simulated it is not "
        "claimed."
    ]


def _leads(tradeoff: Tradeoff) -> list[str]:
    if len(tradeoff.architectures) < 2:
        return []
    return [_lead(tradeoff, place) for place in range(len(tradeoff.levels))]


def _lead(tradeoff: Tradeoff, place: int) -> str:
    """Compare the lowest mean loss at a level with the next."""
    settings = tradeoff.at_level(place)
    stable = [setting for setting in settings if setting.measured]
    at = f"At epsilon {number(tradeoff.levels[place].epsilon)}"
    if len(stable) < 2 and not all(setting.results for setting in settings):
        return f"{at} {f'only {_label(stable[0])}' if stable else 'none'} has a loss."
    if len(stable) < 2:
        return (
            f"{at} only {_label(stable[0])} did not diverge." if stable else f"{at} all diverged."
        )
    best, second = sorted(stable, key=lambda setting: setting.loss)[:2]
    gap = second.loss - best.loss
    return (
        f"{at} {_label(best)} has the lower loss by {gap:.3f}{_against_range(best, second)}; its "
        f"accuracy is {best.mean(ACCURACY):.3f} against {second.mean(ACCURACY):.3f}."
    )


def _against_range(best: Setting, second: Setting) -> str:
    if len(best.results) == 1:
        return ""
    half_range = max(best.half_range, second.half_range)
    if second.loss - best.loss <= half_range:
        return f", within half the range of the seeds ({half_range:.3f})"
    return f", {(second.loss - best.loss) / half_range:.1f} times half the range of the seeds"


def _price(tradeoff: Tradeoff, name: str) -> str:
    """Say what privacy costs an architecture, from the least noise to the most."""
    settings = tradeoff.settings(name)
    levels = zip(tradeoff.levels, settings, strict=True)
    stable = [(level, setting) for level, setting in levels if setting.measured]
    if not stable and not all(setting.results for setting in settings):
        return f"{label(name)} has no loss: no run finished that did not diverge."
    if not stable:
        return f"{label(name)} diverged at every level."
    (least, first), (most, last) = stable[0], stable[-1]
    change = f" and {last.loss:.3f} at {number(most.epsilon)}" if len(stable) > 1 else ""
    return (
        f"{label(name)} has a loss of {first.loss:.3f} at epsilon {number(least.epsilon)}{change}."
    )


def _divergence(tradeoff: Tradeoff) -> str:
    trials = [
        f"{_label(setting)} at epsilon {number(level.epsilon)} ({loss_text(setting)})"
        for place, level in enumerate(tradeoff.levels)
        for setting in tradeoff.at_level(place)
        if setting.diverged
    ]
    return f"Diverged: {enumerate_words(trials)}." if trials else "No run diverged."


def _caveat(tradeoff: Tradeoff) -> str:
    return (
        "Learning rates, clip norm and server optimizer are the same at every level; none was "
        "tuned to a level or to an architecture, and each level may have a better one. "
        f"{seeds_caveat(tradeoff)}"
    )


def _label(setting: Setting) -> str:
    return label(setting.architecture)
