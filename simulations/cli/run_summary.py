"""The final output of ``fedsi run``: some lines, or a table of the whole summary."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from simulations.safe_text import typed

if TYPE_CHECKING:
    from fedsi.data.baselines import Baselines
    from fedsi.tasks.task import Task
    from server.runs.summary import PersonalisationSummary, PrivacySummary, Summary

_BEFORE = {
    "status": "status",
    "architecture": "architecture",
    "parameters": "parameters",
    "trained_parameters": "parameters trained",
    "rounds": "rounds",
    "clients_trained": "clients trained",
    "clients_rejected": "clients rejected",
    "clients_failed": "clients failed",
    "losses": "contributions lost",
    "rounds_repeated": "rounds repeated",
    "clients_dropped": "clients dropped",
    "kept_bytes": "bytes that clients keep",
    "tokens_trained": "tokens trained",
}
"""Labels of the rows before the metrics."""
_AFTER = {
    "corpus": "corpus",
    "corpus_sha256": "corpus SHA-256",
    "vocabulary_size": "vocabulary",
    "vocabulary_source": "vocabulary chosen by",
    "population": "population",
    "train_seconds": "training seconds",
    "clients_per_second": "clients per second",
    "tokens_per_second": "tokens per second",
    "model_sha256": "model SHA-256",
}


def lines(
    summary: "Summary", task: "Task", rounds: int, baselines: "Baselines | None" = None
) -> Iterator[str]:
    """Yield the result of a run: its end, model, corpus, metrics, best round and privacy cost.

    Lost contributions and repeated rounds have a line if there are any.

    Args:
        summary: The run's summary.
        task: Its task.
        rounds: Number of rounds of its experiment.
        baselines: N-gram models on the same held-out targets, if they were counted.
    """
    from server.runs.degree import degree
    from simulations.losses import sentence

    ended = "" if summary.status in {"finished", "diverged"} else f" by {summary.ended_by}"
    yield (
        f"{summary.status}{ended}: {summary.rounds:,} of {rounds:,} rounds, "
        f"{summary.clients_trained:,} clients, {summary.tokens_trained:,} targets in "
        f"{summary.train_seconds:.1f} s"
    )
    lost = sentence(summary.losses, summary.rounds_repeated)
    if lost:
        yield lost
    yield (
        f"{summary.architecture}: {summary.parameters:,} parameters, on {summary.corpus} "
        f"({summary.population:,} clients, vocabulary {summary.vocabulary_size:,})"
    )
    loss, unigram = _number(summary.heldout_loss), _number(summary.unigram_loss)
    wrong = degree(summary)
    if baselines and not baselines.ranks_labels:
        told = (
            f"; {wrong or baselines.better_than(summary.heldout_loss)} (unigram {unigram}, bigram "
            f"{_number(baselines.loss('bigram'))}, trigram {_number(baselines.loss('trigram'))})"
        )
    else:
        told = f", {wrong}" if wrong else ""
        told += f"; the unigram model has {unigram}" if "unigram_loss" in task.names else ""
    yield f"held-out loss {loss} nats per target{told}"
    scores = {task.score: task.title, **task.curves}
    yield ", ".join(
        f"{label} {_percent(summary.heldout.get(name))}" for name, label in scores.items()
    )
    if baselines and baselines.ranks_labels:
        yield baselines.better_than(None, summary.heldout.get(task.score))
    if summary.best_round in {None, summary.rounds}:
        best = "the last model is the best"
    else:
        best = f"the best is of round {summary.best_round}: {_number(summary.best_heldout_loss)}"
    traffic = (summary.download_bytes, summary.upload_bytes)
    received, sent = (f"{amount / 1e6:,.1f} MB" for amount in traffic)
    yield f"{best}; clients would receive {received} and send {sent}"
    claim = _privacy(summary.privacy).get("epsilon")
    yield f"epsilon {claim}" if claim else "no privacy: the model may reveal its clients' text"


def next_commands(summary: "Summary", folder: Path) -> Iterator[str]:
    """Yield suggestions of next commands."""
    place = typed(folder)
    if summary.diverged:
        yield (
            "next: lower client.learning_rate or server.learning_rate with --set; a client's is "
            f"measured by: fedsi suggest-lr {typed(folder / 'experiment.toml')}"
        )
        return
    best = " --best" if summary.best_round not in {None, summary.rounds} else ""
    yield f"next: fedsi evaluate {place}{best}"
    kept = folder / "checkpoint.safetensors"
    if kept.exists():
        yield (
            f"or more rounds: fedsi run --resume --out {place} "
            f"--set server.rounds={2 * summary.rounds} "
            f"(its checkpoint has {kept.stat().st_size / 1e6:,.1f} MB)"
        )


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "not a number" if value is None else f"{100 * value:.1f} %"


def facts(summary: "Summary", task: "Task", baselines: "Baselines | None") -> dict[str, str]:
    """Return a run's whole summary as texts by label."""
    values = summary.to_json()
    metrics = {
        name if name in values else f"heldout_{name}": f"held-out {label}"
        for name, label in task.shown.items()
    }
    found = {}
    for key, label in {**_BEFORE, **metrics, **_AFTER}.items():
        if key not in values:
            continue
        found[label] = _cell(values[key])
    if baselines is not None:
        for name in () if baselines.ranks_labels else ("bigram", "trigram"):
            scores = f"{baselines.loss(name):.4f}, word accuracy {baselines.accuracy(name):.4f}"
            found[f"{name} model's loss"] = scores
        score = summary.heldout.get(task.score)
        found["verdict"] = baselines.better_than(summary.heldout_loss, score)
    if summary.provenance and "products" in summary.provenance:
        found["matrix products"] = str(summary.provenance["products"])
    found |= _privacy(summary.privacy)
    if summary.personalisation:
        found["fine-tuned on held-out clients"] = _gain(summary.personalisation)
    return found


def _cell(value: object) -> str:
    """Return a value of the summary as text; counts of losses in words."""
    from simulations.losses import in_words

    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return in_words(value) or "none"
    return "not a number" if value is None else str(value)


def _gain(tuned: "PersonalisationSummary") -> str:
    """Return the loss before and after fine-tuning, and the number of clients."""
    losses = (tuned.before["loss"], tuned.after["loss"])
    words = ("not a number" if loss is None else f"{loss:.4f}" for loss in losses)
    return f"loss {' -> '.join(words)} of {tuned.clients} clients ({tuned.clients_too_small} small)"


def _privacy(claim: "PrivacySummary | None") -> dict[str, str]:
    """Return the claim of a private run, and the clients whose participations were checked."""
    if claim is None:
        return {}
    epsilon = "infinite" if claim.epsilon is None else f"{claim.epsilon:.4g}"
    rows = {
        "epsilon": f"{epsilon} at delta {claim.delta:.3g}, {claim.adjacency} ({claim.accountant})"
    }
    found = claim.participations
    if found is None:
        return rows
    happened = f"at most {found.most}"
    if found.closest:
        happened += f", at least {found.closest} rounds apart"
    if found.most_allowed:
        happened += f" (allowed: {found.most_allowed}, {found.closest_allowed} rounds apart)"
    return {
        **rows,
        "participations of a client": happened,
        "participations checked for": found.checked,
    }
