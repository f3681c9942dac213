"""``fedsi bench``: failing clients and engines."""

from dataclasses import asdict
from typing import Annotated

import typer

from simulations.cli import options
from simulations.cli.bench.shared import write
from simulations.cli.display import Display


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
    write(program.soak_report(found), result, out, as_json=as_json)


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
    write(report, [asdict(one) for one in runs], out, as_json=as_json)
