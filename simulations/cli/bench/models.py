"""``fedsi bench``: inference with a model, and its depth."""

from dataclasses import asdict
from typing import Annotated

import typer

from simulations.cli import options
from simulations.cli.bench.shared import counts_of, show, sizes_of, write
from simulations.cli.display import Display


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

    wanted = sizes_of(sizes)
    with Display(options.messages()) as display:
        finished = open_run(run, trust=trust)
        refuse_labels(finished.trained, "fedsi bench keystroke")
        population = open_heldout(finished, cache, display.step, corpus)
        found = program.measure_keystroke(
            finished, population, wanted, positions, parts, display.step
        )
    write(program.keystroke_report(found), [asdict(one) for one in found], out, as_json=as_json)


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

    wanted, active = sizes_of(sizes), parse_list(shares, float, "--shares")
    with Display(options.messages()) as display:
        found = program.measure_feedforward(wanted, active, display.step)
    write(program.feedforward_report(found), [asdict(one) for one in found], out, as_json=as_json)


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

    counts = counts_of("--depths", depths)
    if len(counts) < 2:
        raise typer.BadParameter(f"--depths {depths} has no slope: give at least two depths")
    show(asdict(measure_depth_slope(width, counts, networks)), as_json=as_json)
