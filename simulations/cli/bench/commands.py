"""The commands of ``fedsi bench``."""

import typer

from simulations.cli.bench.corpora import ingestion, population
from simulations.cli.bench.failures import faults, soak
from simulations.cli.bench.models import depth_slope, feedforward, keystroke
from simulations.cli.bench.peers import flower, peers
from simulations.cli.bench.training import (
    device,
    engines,
    presets,
    privacy,
    products,
    roofline,
    scaling,
)

bench = typer.Typer(help="Measure fedsi on this machine.", no_args_is_help=True)
bench.command()(ingestion)
bench.command()(population)
bench.command()(peers)
bench.command()(device)
bench.command()(flower)
bench.command()(roofline)
bench.command()(products)
bench.command()(privacy)
bench.command()(scaling)
bench.command()(presets)
bench.command()(engines)
bench.command()(soak)
bench.command()(faults)
bench.command()(keystroke)
bench.command()(feedforward)
bench.command(name="depth-slope")(depth_slope)
