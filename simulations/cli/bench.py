"""``fedsi bench``: measure fedsi on this machine."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsi.files import make_folder
from simulations.cli import options
from simulations.cli.display import Display
from simulations.cli.measurements import show_measurements
from simulations.cli.wide_table import print_facts

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from simulations.benchmarks.report import Measurements

bench = typer.Typer(help="Measure fedsi on this machine.", no_args_is_help=True)


@bench.command()
def ingestion(
    clients: Annotated[int, typer.Option(min=10, help="Clients to generate.")] = 100_000,
    sentences: Annotated[int, typer.Option(min=10, help="Sentences of all.")] = 5_000_000,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for the corpus; by default it is deleted afterwards."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Generate a corpus like Stack Overflow and build its token store."""
    from simulations.benchmarks.ingestion import measure_ingestion

    if sentences < clients:
        raise typer.BadParameter(f"{sentences} sentences are too few for {clients} clients")
    if folder is not None:
        make_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder) as place, Display(options.messages()) as display:
        result = measure_ingestion(Path(place), clients, sentences, display.step)
    _show(result, as_json=as_json)


@bench.command()
def population(
    clients: Annotated[int, typer.Option(min=100, help="Synthetic clients.")] = 1_000_000,
    cohort: Annotated[int, typer.Option(min=1, help="Clients in a round.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to train.")] = 3,
    as_json: options.Json = False,
) -> None:
    """Open a large synthetic population, draw cohorts of it and train some."""
    from simulations.benchmarks.large_population import measure_population

    if cohort > clients // 2:
        raise typer.BadParameter(f"a cohort of {cohort} is too large for {clients} clients")
    _show(measure_population(clients, cohort, rounds), as_json=as_json)


Corpus = Annotated[str, typer.Option(help="The texts to train on.")]
Architectures = Annotated[str, typer.Option(metavar="NAME,...", help="Which architectures.")]
Sizes = Annotated[str, typer.Option(metavar="SIZE,...", help="Which sizes of the model.")]
Cohort = Annotated[int, typer.Option(min=1, help="Clients in a round.")]
Rounds = Annotated[int, typer.Option(min=2, help="Rounds; the first is dropped.")]

_BOTH, _ALL = "cifg,si_cifg", "0.05M,0.34M,1.3M,3.5M"


@bench.command()
def peers(
    pfl_python: Annotated[
        Path,
        typer.Option(metavar="PYTHON", help="The Python of an environment that has pfl 0.6."),
    ],
    corpus: Corpus = "pydocs",
    architectures: Architectures = _BOTH,
    sizes: Sizes = _ALL,
    precision: Annotated[
        str, typer.Option(help="fedsi's client.precision; pfl's is float32.")
    ] = "float32",
    cohort: Cohort = 20,
    rounds: Rounds = 6,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Train the same models on the same clients with fedsi and with pfl-research, in turn."""
    _check_python(pfl_python, "pfl", "pfl[pytorch]==0.6.0")
    tasks = [
        (name, experiment.updated({"client.precision": precision}))
        for name, experiment in _tasks(corpus, architectures, sizes, cohort, rounds)
    ]
    _compare("peers", "pfl", pfl_python, tasks, cache, out, as_json=as_json)


@bench.command()
def device(
    device: Annotated[
        str, typer.Option(metavar="cpu|cuda|mps", help="Where clients are trained at once.")
    ] = "cuda",
    corpus: Corpus = "synthetic",
    architectures: Architectures = "cifg,si_cifg,transformer",
    sizes: Sizes = "0.34M,1.3M,3.5M",
    cohorts: Annotated[
        str, typer.Option(metavar="N,...", help="Numbers of clients in a round.")
    ] = "100,1000",
    lanes: Annotated[int, typer.Option(min=1, help="Clients trained at a time.")] = 64,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Train many clients at once on a device, and one after another."""
    from simulations.benchmarks.device import DeviceRound, device_report, measure_device

    counts = _counts("--cohorts", cohorts)
    keys = {"client.device": device, "client.step": "vectorised", "client.lanes": lanes}
    measured: list[DeviceRound] = []
    with Display(options.messages()) as display:
        for size, experiment in _tasks(corpus, architectures, sizes, max(counts), 2):
            chosen = experiment.updated(keys)
            measured += measure_device(chosen, size, counts, cache, display.step)
    _report(device_report(measured), [asdict(one) for one in measured], out, as_json=as_json)


@bench.command()
def flower(
    flower_python: Annotated[
        Path,
        typer.Option(metavar="PYTHON", help="The Python of an environment that has Flower 1.41."),
    ],
    corpus: Corpus = "pydocs",
    architectures: Architectures = _BOTH,
    sizes: Sizes = "1.3M",
    cohort: Cohort = 50,
    rounds: Rounds = 4,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Train the same clients with fedsi and with Flower's simulation, a node for each client."""
    _check_python(flower_python, "flwr", "flwr[simulation]==1.41.0")
    tasks = _tasks(corpus, architectures, sizes, cohort, rounds)
    _compare("flower", "flower", flower_python, tasks, cache, out, as_json=as_json)


@bench.command()
def roofline(
    corpus: Corpus = "pydocs",
    architectures: Architectures = _BOTH,
    sizes: Sizes = _ALL,
    clients: Annotated[int, typer.Option(min=1, help="Clients whose batches are used.")] = 20,
    repeats: Annotated[int, typer.Option(min=2, help="Repeats; the first is dropped.")] = 8,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Compare the training steps' useful arithmetic with the best matrix product."""
    from simulations.benchmarks import roofline as program

    tasks = _tasks(corpus, architectures, sizes, clients, repeats)
    with Display(options.messages()) as display:
        measured = [
            program.measure_roofline(experiment, size, cache, display.step)
            for size, experiment in tasks
        ]
    _report(
        program.roofline_report(measured), [asdict(one) for one in measured], out, as_json=as_json
    )


@bench.command()
def products(
    architectures: Architectures = "cifg,transformer",
    sizes: Sizes = "0.34M,1.3M,3.5M",
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Measure fedsi's own matrix products and PyTorch's in a step, as client.products=fastest."""
    from simulations.benchmarks import products as program

    with Display(options.messages()) as display:
        measured = [
            program.measure_model_products(experiment, size, cache, display.step)
            for size, experiment in _tasks("synthetic", architectures, sizes, 1, 1)
        ]
    rows = [row for one in measured for row in one.rows()]
    _report(program.products_report(measured), rows, out, as_json=as_json)


@bench.command()
def privacy(
    corpus: Corpus = "pydocs",
    architectures: Architectures = "cifg",
    sizes: Sizes = "1.3M",
    cohort: Cohort = 50,
    rounds: Rounds = 8,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Measure the time that clipping and noise add to a round."""
    from simulations.benchmarks import clipping_and_noise as program

    measured = []
    with Display(options.messages()) as display:
        for size, experiment in _tasks(corpus, architectures, sizes, cohort, rounds):
            measured += program.measure_privacy(experiment, size, cache, display.step)
    _report(
        program.privacy_report(measured), [asdict(one) for one in measured], out, as_json=as_json
    )


@bench.command()
def scaling(
    corpus: Corpus = "pydocs",
    architecture: Annotated[str, typer.Option(metavar="NAME", help="Which architecture.")] = "cifg",
    size: Annotated[str, typer.Option(metavar="SIZE", help="Size for the workers.")] = "1.3M",
    large: Annotated[
        str, typer.Option(metavar="SIZE", help="Size for overhead and memory.")
    ] = "5M",
    workers: Annotated[str, typer.Option(metavar="N,...", help="Numbers of workers.")] = "1,2",
    cohorts: Annotated[
        str, typer.Option(metavar="N,...", help="Cohorts for memory; the largest is for overhead.")
    ] = "20,100,500",
    cohort: Cohort = 200,
    rounds: Rounds = 6,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Measure the speed-up by workers, a round's overhead, a worker's memory, and start-up."""
    from simulations.benchmarks.scaling.measure import measure_scaling
    from simulations.benchmarks.scaling.report import scaling_report

    counts, members = _counts("--workers", workers), _counts("--cohorts", cohorts)
    if counts[0] != 1:
        raise typer.BadParameter(f"--workers {workers} is compared with one worker; start with 1")
    ((_, small), (_, big)) = _tasks(corpus, architecture, f"{size},{large}", cohort, rounds)
    with tempfile.TemporaryDirectory() as place, Display(options.messages()) as display:
        findings = measure_scaling(small, big, counts, members, Path(place), cache, display.step)
    _report(scaling_report(findings), [asdict(one) for one in findings], out, as_json=as_json)


@bench.command()
def presets(
    corpus: Corpus = "pydocs",
    cohort: Cohort = 10,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Run a round of each preset of a published size, on one corpus."""
    from simulations.benchmarks import published_sizes as program

    with tempfile.TemporaryDirectory() as place, Display(options.messages()) as display:
        rounds = [
            program.measure_preset(name, corpus, cohort, Path(place), cache, display.step)
            for name in program.PRESETS
        ]
    _report(program.presets_report(rounds), [asdict(one) for one in rounds], out, as_json=as_json)


@bench.command()
def engines(
    corpus: Corpus = "synthetic",
    architecture: Annotated[str, typer.Option(metavar="NAME", help="Which architecture.")] = "cifg",
    sizes: Annotated[
        str, typer.Option(metavar="SIZE,...", help="Sizes of the model.")
    ] = "0.34M,5M",
    cohort: Cohort = 500,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds; the first is dropped.")] = 3,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Measure a round, and the start of a run, on each engine of this machine."""
    from simulations.benchmarks import engines as program

    found = []
    with Display(options.messages()) as display:
        for _, task in _tasks(corpus, architecture, sizes, cohort, rounds):
            members = {"data.population": 2 * cohort} if corpus == "synthetic" else {}
            experiment = program.engines_experiment(task.updated(members), rounds)
            found += program.measure_engines(experiment, [*program.WAYS], cache, display.step)
    _report(program.engines_report(found), [asdict(one) for one in found], out, as_json=as_json)


@bench.command()
def soak(
    rounds: Annotated[int, typer.Option(min=10, help="Rounds.")] = 1000,
    cohort: Annotated[int, typer.Option(min=2, help="Clients in a round.")] = 10,
    workers: Annotated[int, typer.Option(min=1, help="Workers.")] = 1,
    slow: Annotated[float, typer.Option(min=0, max=0.7, help="Share of slow clients.")] = 0.0,
    killed: Annotated[
        float, typer.Option(min=0, max=0.7, help="Share that kills its worker.")
    ] = 0.0,
    timeout: Annotated[float, typer.Option(min=0.5, help="Seconds until a reply is late.")] = 30.0,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Run many rounds with 30 % failing clients: memory, open files, and all losses counted."""
    from simulations.benchmarks import soak as program

    with Display(options.messages()) as display:
        more = {"slow": slow, "killed": killed}
        found = program.measure_soak(rounds, cohort, workers, more, timeout, cache, display.step)
    result = {
        "injected": found.injected,
        "accounts": found.accounts(),
        "finite": found.finite,
        "memory_mib": found.span("memory_mib"),
        "descriptors": found.span("descriptors"),
    }
    _report(program.soak_report(found), result, out, as_json=as_json)


@bench.command()
def faults(
    rounds: Annotated[int, typer.Option(min=1, max=4, help="Rounds with each fault.")] = 2,
    timeout: Annotated[float, typer.Option(min=0.5, help="Seconds until a reply is late.")] = 10.0,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Inject each kind of fault on the engines of this machine: what happened and was lost."""
    from simulations.benchmarks import fault_table as program

    with Display(options.messages()) as display:
        runs = program.measure_faults(rounds, timeout, [*program.PLACES], cache, display.step)
    report = program.faults_report(runs, timeout)
    _report(report, [asdict(one) for one in runs], out, as_json=as_json)


@bench.command()
def keystroke(
    run: options.RunFolderArgument,
    sizes: Annotated[
        str, typer.Option(metavar="WORDSxSIZE,...", help="Larger output layers to construct.")
    ] = "",
    positions: Annotated[int, typer.Option(min=10, help="Held-out positions.")] = 2000,
    parts: Annotated[
        int, typer.Option(min=1, help="Also divide the vocabulary into parts, a thread each.")
    ] = 1,
    corpus: options.MovedCorpus = None,
    trust: options.Trust = False,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Measure the output layers of a trained model: whose words are right, and how fast."""
    from fedsi.inference.ranking import refuse_labels
    from simulations.benchmarks import keystroke as program
    from simulations.evaluation import open_heldout
    from simulations.finished_run import open_run

    wanted = _sizes(sizes)
    with Display(options.messages()) as display:
        finished = open_run(run, trust=trust)
        refuse_labels(finished.trained, "fedsi bench keystroke")
        population = open_heldout(finished, cache, display.step, corpus)
        found = program.measure_keystroke(
            finished, population, wanted, positions, parts, display.step
        )
    _report(program.keystroke_report(found), [asdict(one) for one in found], out, as_json=as_json)


@bench.command()
def feedforward(
    sizes: Annotated[
        str, typer.Option(metavar="SIZExNEURONS,...", help="Sizes of the stream and neurons.")
    ] = "512x2048,1024x4096",
    shares: Annotated[
        str, typer.Option(metavar="SHARE,...", help="Active shares of top_k.")
    ] = "0.05,0.08",
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Measure the feed-forward parts of a Transformer for one token, as after each key."""
    from simulations.benchmarks import feedforward as program
    from simulations.cli.studies import parse_list

    wanted, active = _sizes(sizes), parse_list(shares, float, "--shares")
    with Display(options.messages()) as display:
        found = program.measure_feedforward(wanted, active, display.step)
    _report(program.feedforward_report(found), [asdict(one) for one in found], out, as_json=as_json)


@bench.command(name="depth-slope")
def depth_slope(
    width: Annotated[int, typer.Option(min=2, help="Units of each hidden layer.")] = 512,
    depths: Annotated[
        str, typer.Option(metavar="N,...", help="Numbers of hidden layers.")
    ] = "4,8,16,32",
    networks: Annotated[int, typer.Option(min=2, help="Networks at each depth.")] = 12,
    as_json: options.Json = False,
) -> None:
    """Measure how the learning rate of deep ReLU networks falls with depth (arXiv 2305.07810)."""
    from simulations.benchmarks.depth_slope import measure_depth_slope

    counts = _counts("--depths", depths)
    if len(counts) < 2:
        raise typer.BadParameter(f"--depths {depths} has no slope: give at least two depths")
    _show(asdict(measure_depth_slope(width, counts, networks)), as_json=as_json)


def _sizes(text: str) -> list[tuple[int, int]]:
    try:
        pairs = [tuple(map(int, word.split("x"))) for word in text.split(",") if word]
        sizes = [(words, size) for words, size in pairs]
    except ValueError:
        sizes = [(0, 0)]
    if any(min(size) < 1 for size in sizes):
        raise typer.BadParameter(f"--sizes {text} is not a list of sizes like 10000x670,50000x670")
    return sizes


def _counts(option: str, text: str) -> list[int]:
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1 or len(set(counts)) < len(counts):
        raise typer.BadParameter(f"{option} {text} is not a list of different counts like 1,2")
    return counts


def _tasks(
    corpus: str, architectures: str, sizes: str, cohort: int, rounds: int
) -> list[tuple[str, "Experiment"]]:
    """Return each model's size and experiment."""
    from fedsi.experiment import Experiment
    from simulations.benchmarks.peers.measure import (
        ARCHITECTURES,
        SIZES,
        experiment_for,
    )

    for what, text, known in (("size", sizes, SIZES), ("model", architectures, ARCHITECTURES)):
        unknown = set(text.split(",")) - set(known)
        if unknown:
            raise typer.BadParameter(
                f"there is no {what} {min(unknown)}; choose from {', '.join(known)}"
            )
    base = Experiment().updated({"data.corpus": corpus})
    return [
        (size, experiment_for(base, architecture, size, cohort, rounds))
        for architecture in architectures.split(",")
        for size in sizes.split(",")
    ]


def _check_python(python: Path, folder: str, package: str) -> None:
    if not python.exists():
        raise typer.BadParameter(
            f"there is no {python}; make an environment with: python -m venv {folder} && "
            f"{folder}/bin/pip install '{package}'"
        )


def _compare(
    name: str,
    peer: str,
    python: Path,
    tasks: Sequence[tuple[str, "Experiment"]],
    cache: Path,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    from simulations.benchmarks.peers import measure, report

    measured = []
    with Display(options.messages()) as display:
        for size, experiment in tasks:
            with tempfile.TemporaryDirectory() as task:
                measured.append(
                    measure.measure_peers(
                        experiment, size, peer, python, Path(task), cache, display.step
                    )
                )
    rows = [asdict(one) for one in measured]
    _report(report.peers_report(measured, name), rows, out, as_json=as_json)


def _report(report: "Measurements", result: Any, out: Path | None, *, as_json: bool) -> None:
    """Write a report, and print its table or the result as JSON."""
    folder = out or options.default_folder(f"bench-{report.name}")
    show_measurements(report, result, folder, as_json=as_json)


def _show(result: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result))
        return
    facts = {key.replace("_", " "): _text(value) for key, value in result.items()}
    print_facts(options.output(), "", facts)


def _text(value: Any) -> str:
    match value:
        case dict():
            return "\n".join(f"{key.replace('_', ' ')}: {_text(v)}" for key, v in value.items())
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
