"""``fedsi run``: one experiment."""

import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsi.errors import UserError
from simulations.cli import options
from simulations.cli.display import Display
from simulations.cli.run_summary import facts, lines, next_commands
from simulations.cli.wide_table import print_facts, print_table
from simulations.engines.table import ENGINES, USUAL, EngineOptions, engine_for
from simulations.safe_text import one_line, typed

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from server.observers import Observer
    from server.round_record import RoundRecord
    from server.runs.summary import Summary
    from simulations.result import Result
    from simulations.tracking.sink import Sink


def run(
    experiment_file: options.ExperimentFile = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes of a node; they do not affect the result.")
    ] = 1,
    engine: Annotated[
        str, typer.Option(metavar="|".join(ENGINES), help="Where the nodes run.")
    ] = USUAL,
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Nodes of --engine ray, by default one for each machine; they do not affect the "
            "result.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|auto",
            help="A running Ray cluster; by default --engine ray starts one on this machine.",
        ),
    ] = None,
    superlink: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="SuperLink of --engine deployed; see docs/deploy.md."
        ),
    ] = None,
    superlink_secret: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The SuperLink's secret.")
    ] = None,
    root_certificates: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM certificates to check the SuperLink against."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Without TLS; only to a SuperLink on this machine.")
    ] = False,
    out: options.Out = None,
    per_client: options.PerClient = None,
    as_json: options.Json = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print a table of the whole summary.")
    ] = False,
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    other_machine: Annotated[
        bool,
        typer.Option(
            "--other-machine",
            help="Resume even if the bits differ: another processor, other versions.",
        ),
    ] = False,
    corpus: Annotated[
        Path | None,
        typer.Option(
            "--corpus",
            metavar="PATH",
            help="With --resume: where the run's corpus is now, if it has been moved.",
        ),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            "--init-from",
            metavar="RUN|FILE",
            help="Start from a run's weights, word by word; the same as --set model.init_from=RUN.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="cpu|cuda|mps|auto",
            help="Train the clients there, many at once on a GPU, which auto takes if there is "
            "one. Short for --set client.device=... --set client.step=vectorised.",
        ),
    ] = None,
    track: options.Track = None,
    log_json: Annotated[
        Path | None,
        typer.Option(
            "--log-json", metavar="FILE", help="Append each event of the run, a line of JSON each."
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            min=0,
            max=65535,
            metavar="PORT",
            help="Serve live metrics for Prometheus on this machine; 0 takes a free port.",
        ),
    ] = None,
    trust: options.Trust = False,
    publish: options.Publish = None,
    heldout_is_public: options.HeldoutIsPublic = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Run one federated training and write its folder."""
    from server.runs.folder import EXPERIMENT
    from simulations.reports.run import write_run_page
    from simulations.simulation import simulate

    options.check_publish(publish, heldout_is_public=heldout_is_public)
    overrides = [*(overrides or []), *_keys_of(init_from, device)]
    folder = out or options.default_folder("run")
    named = experiment_file or preset or (overrides and not (folder / EXPERIMENT).exists())
    begun = bool(resume and not named)
    _check_moved(corpus, begun=begun)
    experiment = (
        _continued(folder, overrides, corpus, cache, trust=trust)
        if begun
        else options.chosen_experiment(experiment_file, preset, overrides, trust=trust)
    )
    engine_options = EngineOptions(
        nodes=nodes,
        ray_address=ray_address,
        superlink=superlink,
        superlink_secret=superlink_secret,
        root_certificates=root_certificates,
        insecure=insecure or None,
    )
    if per_client:
        from simulations.per_client import check_file

        check_file(per_client)
        _check_clients_are_here(engine, engine_options)
    if publish:
        from simulations.publish import check_publishable

        check_publishable(experiment, publish, heldout_is_public=heldout_is_public)
    if resume and not overwrite and not (folder / EXPERIMENT).exists():
        _tell(f"{one_line(str(folder))} holds no run yet, so a new one begins")
    sinks = _sinks(folder, track, log_json, metrics_port)
    before = _kept_summary(folder) if resume else None
    try:
        with Display(options.messages()) as display:
            result = simulate(
                experiment,
                workers=workers,
                engine=engine,
                engine_options=engine_options,
                out=folder,
                overwrite=overwrite,
                resume=resume,
                other_machine=other_machine,
                cache=cache,
                on_corpus=partial(display.corpus, experiment),
                on_round=shown_on(display),
                sinks=sinks,
                progress=display.step,
            )
    except KeyboardInterrupt:
        raise _interrupted(folder, begun=(folder / EXPERIMENT).exists()) from None
    if result.summary == before:
        _tell(f"the run in {one_line(str(folder))} was finished before; nothing was trained")
    write_run_page(folder)
    if per_client:
        from simulations.per_client import write_table

        write_table(result.clients, per_client)
    if as_json:
        typer.echo(json.dumps(result.summary.to_json(), allow_nan=False))
    else:
        _show(result, verbose=verbose)
    _tell(f"results are in {one_line(str(folder))}")
    if not as_json:
        _tell(*next_commands(result.summary, folder))
    if publish:
        from simulations.finished_run import open_run
        from simulations.publish import publish as publish_run

        run = open_run(folder, trust=True)  # its own code has just run
        publish_run(run, publish, {}, heldout_is_public=heldout_is_public)
        _tell(f"published to {one_line(str(publish))}")


def _check_moved(corpus: Path | None, *, begun: bool) -> None:
    if corpus and not begun:
        raise UserError(
            f"--corpus {corpus} says where the corpus of a run is that --resume goes on with; name "
            "that of a new run first: fedsi run CORPUS"
        )


def _continued(
    folder: Path, overrides: list[str], corpus: Path | None, cache: Path, *, trust: bool
) -> "Experiment":
    """Return the experiment of the run in a folder, which then names where its corpus is now."""
    from server.runs.folder import RunFolder
    from simulations.moved_corpus import move_corpus, with_corpus_at

    experiment, run = options.experiment_of_run(folder, overrides, trust=trust), RunFolder(folder)
    if corpus:
        with Display(options.messages()) as display:
            move_corpus(run, corpus, cache, display.step)
        return experiment.updated({"data.corpus": run.experiment().data.corpus})
    return experiment if run.finished(experiment) else with_corpus_at(folder, experiment, None)


def _tell(*lines: str) -> None:
    for line in lines:
        options.messages().print(line, highlight=False, soft_wrap=True)


def _interrupted(folder: Path, *, begun: bool) -> options.StoppedError:
    go_on = f"continue with: fedsi run --resume --out {typed(folder)}"
    return options.StoppedError(f"interrupted; {go_on if begun else 'nothing has run yet'}")


def _kept_summary(folder: Path) -> "Summary | None":
    """Return the summary of a run that has one."""
    from server.runs.folder import RunFolder

    with suppress(UserError):  # the run itself reports what is damaged
        return RunFolder(folder).summary()
    return None


def _check_clients_are_here(engine: str, engine_options: EngineOptions) -> None:
    if engine_for(engine, engine_options).remote:
        raise UserError(
            f"--per-client has no effect with --engine {engine}: the clients are on the nodes"
        )


def _sinks(
    folder: Path, track: str | None, log_json: Path | None, port: int | None
) -> "list[Sink]":
    """Return what receives the run's events.

    Raises:
        UserError: A tracker is unknown or its package is missing, the log cannot be written, or the
            port cannot be used.
    """
    if not (track or log_json or port is not None):
        return []
    from simulations.tracking.curves import curves_of
    from simulations.tracking.json_lines import JsonLines
    from simulations.tracking.metrics_endpoint import MetricsEndpoint

    sinks: list[Sink] = [*curves_of(options.tracker_names(track), folder)]
    if log_json:
        sinks.append(JsonLines(log_json))
    if port is not None:
        endpoint = MetricsEndpoint(port)
        _tell(f"metrics: {endpoint.address}")
        sinks.append(endpoint)
    return sinks


def _show(result: "Result", *, verbose: bool) -> None:
    from fedsi.tasks.table import task_of
    from simulations.reports.run import length_tables

    task, rounds = task_of(result.experiment), result.experiment.server.rounds
    if verbose:
        print_facts(options.output(), "Summary", facts(result.summary, task, result.baselines))
    else:
        for line in lines(result.summary, task, rounds, result.baselines):
            typer.echo(one_line(line))
    for table in length_tables(result.summary, task):
        print_table(options.output(), table.title, table.header, table.rows)


def shown_on(display: Display) -> "Observer":
    """Return an observer that shows each round when it ends."""
    records: list[RoundRecord] = []

    def on_round(experiment: "Experiment", record: "RoundRecord") -> None:
        records.append(record)
        display.rounds(experiment.model.architecture, records, experiment.server.rounds)

    return on_round


def _keys_of(init_from: Path | None, device: str | None) -> list[str]:
    """Return the keys that options are short for; what the device ``auto`` took is told."""
    from fedsi import accelerator

    keys = [f"model.init_from={init_from}"] if init_from else []
    if device == "auto":
        device = accelerator.fastest()
        options.messages().print(f"clients are trained on: {device}", highlight=False)
    if device:
        keys.append(f"client.device={device}")
    if device not in (None, "cpu"):
        keys.append("client.step=vectorised")
    return keys
