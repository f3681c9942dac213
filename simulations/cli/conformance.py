"""``fedsi conformance``: known answers about private aggregation, and checks of frameworks."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulations.cli import options
from simulations.cli.wide_table import print_table

if TYPE_CHECKING:
    from simulations.conformance.report import Results


def conformance(
    adapters: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            metavar="NAME",
            help="fedsi, flower, flower_client, pfl, or my_module:my_adapter; may be given several "
            "times. By default fedsi, flower, flower_client, and pfl with --pfl-python.",
        ),
    ] = None,
    pfl_python: Annotated[
        Path | None,
        typer.Option(metavar="PYTHON", help="The Python of an environment that has pfl 0.6."),
    ] = None,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Write known answers about clipping, noise, cohorts and epsilon, and check frameworks.

    Exit code 1 if an adapter fails a check.
    """
    from dataclasses import asdict

    from simulations.conformance.checks import conformance
    from simulations.conformance.report import write_conformance
    from simulations.conformance.table import BUILT_IN, PFL, adapter_of

    names = adapters or [*BUILT_IN, *([PFL] if pfl_python else [])]
    made = [adapter_of(name, pfl_python) for name in names]
    results = {one.name: conformance(one) for one in made}
    folder = out or Path("results/conformance")
    write_conformance(results, folder, shlex.join(["fedsi", *sys.argv[1:]]))
    if as_json:
        found = {name: [asdict(f) for f in findings] for name, findings in results.items()}
        typer.echo(json.dumps(found))
    else:
        _print(results, folder)
    if any(one.status == "fails" for findings in results.values() for one in findings):
        raise typer.Exit(1)


def _print(results: "Results", folder: Path) -> None:
    from simulations.conformance.checks import CHECKS
    from simulations.conformance.report import adapter_sentence

    console = options.output()
    for name, findings in results.items():
        header = ("check", "result", "found")
        rows = [(one.check, one.status, one.found) for one in findings]
        print_table(console, name, header, rows, prose=header)
    for name, findings in results.items():
        console.print(adapter_sentence(name, findings), highlight=False, soft_wrap=True)
    console.print(f"{len(CHECKS)} checks; written to {folder}", highlight=False, soft_wrap=True)
