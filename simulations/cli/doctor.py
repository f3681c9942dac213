"""``fedsi doctor``: the state of the installation, in plain words."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from simulations.cli import options
from simulations.cli.wide_table import print_table

if TYPE_CHECKING:
    from simulations.doctor import Diagnosis

_WORDS = {"ok": "works", "optional": "not installed", "broken": "BROKEN"}


def doctor(as_json: options.Json = False, cache: options.Cache = options.CACHE) -> None:
    """Check the installation: packages, machine, cache, compiler and engines.

    Exit code 1 if something that every run needs is broken.
    """
    from simulations.doctor import examine

    findings = examine(cache)
    broken = [finding for finding in findings if finding.state == "broken"]
    if as_json:
        values = {"works": not broken, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(values))
    else:
        _print(findings, broken)
    if broken:
        raise typer.Exit(1)


def _print(findings: "Sequence[Diagnosis]", broken: "Sequence[Diagnosis]") -> None:
    console, header = options.output(), ("what", "state", "found")
    rows = [(finding.name, _WORDS[finding.state], finding.seen) for finding in findings]
    print_table(console, "Installation", header, rows, prose=header)
    for finding in findings:
        if finding.mend:
            console.print(
                f"{finding.name}: {finding.mend}", highlight=False, markup=False, soft_wrap=True
            )
    what = f"{len(broken)} of {len(findings)} checks failed" if broken else "fedsi works here"
    console.print(what, highlight=False)
