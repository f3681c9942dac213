"""``fedsi bench``: speed of training on this machine."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from simulations.cli import options
from simulations.cli.bench.shared import (
    ALL_SIZES,
    BOTH_CELLS,
    Architectures,
    Cohort,
    Corpus,
    Rounds,
    Sizes,
    counts_of,
    tasks_of,
    write,
)
from simulations.cli.display import Display


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

    counts = counts_of("--cohorts", cohorts)
    keys = {"client.device": device, "client.step": "vectorised", "client.lanes": lanes}
    measured: list[DeviceRound] = []
    with Display(options.messages()) as display:
        for size, experiment in tasks_of(corpus, architectures, sizes, max(counts), 2):
            chosen = experiment.updated(keys)
            measured += measure_device(chosen, size, counts, cache, display.step)
    write(device_report(measured), [asdict(one) for one in measured], out, as_json=as_json)


def roofline(
    corpus: Corpus = "pydocs",
    architectures: Architectures = BOTH_CELLS,
    sizes: Sizes = ALL_SIZES,
    clients: Annotated[int, typer.Option(min=1, help="Clients whose batches are used.")] = 20,
    repeats: Annotated[int, typer.Option(min=2, help="Repeats; the first is dropped.")] = 8,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Compare the training steps' useful arithmetic with the best matrix product."""
    from simulations.benchmarks import roofline as program

    tasks = tasks_of(corpus, architectures, sizes, clients, repeats)
    with Display(options.messages()) as display:
        measured = [
            program.measure_roofline(experiment, size, cache, display.step)
            for size, experiment in tasks
        ]
    write(
        program.roofline_report(measured), [asdict(one) for one in measured], out, as_json=as_json
    )


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
            for size, experiment in tasks_of("synthetic", architectures, sizes, 1, 1)
        ]
    rows = [row for one in measured for row in one.rows()]
    write(program.products_report(measured), rows, out, as_json=as_json)


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
        for size, experiment in tasks_of(corpus, architectures, sizes, cohort, rounds):
            measured += program.measure_privacy(experiment, size, cache, display.step)
    write(program.privacy_report(measured), [asdict(one) for one in measured], out, as_json=as_json)


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

    counts, members = counts_of("--workers", workers), counts_of("--cohorts", cohorts)
    if counts[0] != 1:
        raise typer.BadParameter(f"--workers {workers} is compared with one worker; start with 1")
    ((_, small), (_, big)) = tasks_of(corpus, architecture, f"{size},{large}", cohort, rounds)
    with tempfile.TemporaryDirectory() as place, Display(options.messages()) as display:
        findings = measure_scaling(small, big, counts, members, Path(place), cache, display.step)
    write(scaling_report(findings), [asdict(one) for one in findings], out, as_json=as_json)


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
    write(program.presets_report(rounds), [asdict(one) for one in rounds], out, as_json=as_json)


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
        for _, task in tasks_of(corpus, architecture, sizes, cohort, rounds):
            members = {"data.population": 2 * cohort} if corpus == "synthetic" else {}
            experiment = program.engines_experiment(task.updated(members), rounds)
            found += program.measure_engines(experiment, [*program.WAYS], cache, display.step)
    write(program.engines_report(found), [asdict(one) for one in found], out, as_json=as_json)
