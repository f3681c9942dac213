"""What happens inside recurrent cells while they are trained: norms, steps, gates, dead units.

``python -m simulations.benchmarks.mechanism EXPERIMENT.toml OUT EVERY [KEY=VALUE ...] -- [...]``
trains the experiment once with each group of changes, and looks at the global model every EVERY
rounds: the norm of each parameter; the relative step, which is how far the model moved in a round
as a share of its norm; and, on the words of some held-out clients, what the gates do and which
units are dead. It writes ``mechanism.csv``, ``mechanism.png`` and ``mechanism.svg``.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fedsi.data.cache import DEFAULT_CACHE
from fedsi.data.heldout import heldout_sample
from fedsi.data.population import WHOLE, Population
from fedsi.data.prepare import open_population, prepare_for
from fedsi.experiment import Experiment, parse_overrides
from fedsi.models.build import build_model
from fedsi.models.layers import dense, embed_tokens
from fedsi.models.parameters import Parameters
from fedsi.models.recurrent import Recurrent, max_normalised_relu
from fedsi.tasks import next_word
from server.nodes import Hosting
from server.rounds import initial_server_state, run_rounds
from simulations.engines.in_process import InProcessGrid
from simulations.engines.nodes_grid import FIRST_NODE
from simulations.reports.figures import STYLE, save_figure

CLIENTS = 20
"""Held-out clients whose words are read."""
DEAD = 1e-6
"""Largest magnitude of a unit, over all words, that counts as dead."""
SATURATED = 0.95
"""Value from which on a gate counts as open; below 1 minus this it counts as closed."""
GATE: dict[str, Callable[[Tensor], Tensor]] = {
    "cifg": torch.sigmoid,
    "si_cifg": max_normalised_relu,
}

Look = dict[str, Any]


def cell_activity(model: Recurrent, parameters: Parameters, inputs: Tensor) -> Mapping[str, float]:
    """Return what the gates and units of a coupled cell do on sequences.

    Args:
        model: A CIFG or SI-CIFG whose state is its hidden state.
        parameters: Its parameters.
        inputs: Token ids, ``[batch, time]``.

    Returns:
        Means of the forget and the output gate, the shares of forget gates that are open or closed,
        the share of dead units, the root mean square of the state, and the recurrent term's share
        of the pre-activation's norm.
    """
    gate = GATE[model.settings.architecture]
    recurrent, hidden = parameters["cell.recurrent"], model.settings.hidden_size
    words = embed_tokens(model.settings, parameters, inputs)
    projected = dense(words, parameters["cell.kernel"], parameters["cell.bias"])
    state = cell = projected.new_zeros(len(inputs), hidden)
    forgets, outputs, states, shares = [], [], [], []
    for step in projected.unbind(1):
        fed_back = state @ recurrent
        forget, output, _ = (step + fed_back).chunk(3, -1)
        forgets.append(gate(forget))
        outputs.append(gate(output))
        shares.append(float(fed_back.norm() / (fed_back.norm() + step.norm())))
        state, cell = model.cell.step(step, fed_back, cell)
        states.append(state)
    forget, units = torch.stack(forgets), torch.stack(states)
    return {
        "forget gate": float(forget.mean()),
        "output gate": float(torch.stack(outputs).mean()),
        "open": float((forget > SATURATED).double().mean()),
        "closed": float((forget < 1 - SATURATED).double().mean()),
        "dead units": float((units.abs().amax((0, 1)) <= DEAD).double().mean()),
        "state": float(units.square().mean().sqrt()),
        "recurrent share": sum(shares) / len(shares),
    }


def observed(experiment: Experiment, population: Path, every: int) -> Iterator[Look]:
    """Train an experiment, and yield a row for the untrained model and for each EVERY-th round."""
    clients = open_population(population)
    model = build_model(experiment, clients.description.vocabulary_size)
    assert isinstance(model, Recurrent), "a recurrent model is looked into"  # noqa: S101
    inputs = _words(clients)
    state = initial_server_state(experiment, clients.description)
    before = torch.from_numpy(state.parameters).clone()
    with InProcessGrid(population, 1) as grid:
        rounds = run_rounds(
            grid,
            lambda: Hosting({FIRST_NODE: WHOLE}),
            experiment,
            clients.description,
            None,
            state,
            None,
            seed=experiment.seed,
        )
        yield {"round": 0, **_looked_at(model, before, inputs)}
        for after, record in rounds:
            now = torch.from_numpy(after.parameters).clone()
            if record.round % every == 0:
                moved = float((now - before).norm() / before.norm())
                looks = _looked_at(model, now, inputs)
                yield {"round": record.round, "relative step": moved, **looks}
            before = now


def _words(clients: Population) -> Tensor:
    sample = heldout_sample(clients.description, CLIENTS)
    batches = [next_word.batch(clients.examples(int(client))) for client in sample]
    longest = max(batch.inputs.shape[1] for batch in batches)
    padded = [
        torch.nn.functional.pad(torch.from_numpy(b.inputs).long(), (0, longest - b.inputs.shape[1]))
        for b in batches
    ]
    return torch.cat(padded)


def _looked_at(model: Recurrent, flat: Tensor, inputs: Tensor) -> Look:
    named = model.layout.views(flat)
    norms = {f"norm of {name}": float(value.norm()) for name, value in named.items()}
    with torch.no_grad():
        return {**norms, **cell_activity(model, named, inputs)}


PANELS = {
    "Norm of cell.kernel (dashed: cell.recurrent)": (
        "norm of cell.kernel",
        "norm of cell.recurrent",
    ),
    "Step of a round, as a share of the norm": ("relative step",),
    "Mean of forget gates (dashed: output gates)": ("forget gate", "output gate"),
    "Share of dead units (dashed: closed forget gates)": ("dead units", "closed"),
    "Root mean square of the state": ("state",),
    "Recurrent share of the pre-activation": ("recurrent share",),
}
"""Columns of each panel."""


def mechanism_figure(table: pd.DataFrame) -> Figure:
    """Draw the columns over rounds, a colour for each run.

    Args:
        table: Rows of ``observed`` with a column ``run``.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 6), layout="constrained")
        for axes, (title, columns) in zip(figure.subplots(2, 3).flat, PANELS.items(), strict=True):
            for number, (name, rows) in enumerate(table.groupby("run", sort=False)):
                for style, column in zip(("-", "--"), columns, strict=False):
                    text = name if column == columns[0] else None
                    axes.plot(rows["round"], rows[column], style, color=f"C{number}", label=text)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("round")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _short(change: str) -> str:
    """Return ``KEY=VALUE`` without the key's section."""
    key, _, value = change.partition("=")
    return f"{key.rpartition('.')[2]}={value}"


def main(words: Sequence[str], cache: Path = DEFAULT_CACHE) -> None:
    """Train, look, and write the table and the figure."""
    base, out, every = Experiment.from_file(Path(words[0])), Path(words[1]), int(words[2])
    groups = [list(group) for is_end, group in groupby(words[3:], "--".__eq__) if not is_end]
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for changes in groups or [[]]:
        experiment = base.updated(parse_overrides(changes))
        population = prepare_for(experiment, cache)
        run = ", ".join(map(_short, changes)) or "experiment"
        rows += [{"run": run, **row} for row in observed(experiment, population, every)]
    table = pd.DataFrame(rows)
    table.to_csv(out / "mechanism.csv", index=False, float_format="%.6g")
    save_figure(mechanism_figure(table), out / "mechanism")


if __name__ == "__main__":
    main(sys.argv[1:])
