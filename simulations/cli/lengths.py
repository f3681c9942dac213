"""``fedsi lengths``: position encodings at sequence lengths beyond the training length."""

from typing import Annotated

import typer

from fedsi.files import write_atomically
from simulations.cli import options, study

_PRESET = "length"


def lengths(
    experiment_file: options.ExperimentFile = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    positions: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Position encodings to try; by default all."),
    ] = None,
    sequence_lengths: Annotated[
        str, typer.Option("--lengths", metavar="LENGTH,...", help="Lengths to evaluate at.")
    ] = "20,40,80,160",
    seeds: study.Seeds = 3,
    jobs: study.Jobs = None,
    out: options.Out = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Train a Transformer with each position encoding and evaluate it at longer sequences.

    By default the experiment is the preset ``length``.
    """
    from simulations.reports.lengths import LABELS, lengths_report, markdown
    from simulations.reports.study import with_failures
    from simulations.studies.lengths import LengthStudy, experiment_of, length_trials, score_trials

    usual = None if experiment_file or preset else _PRESET
    base = options.chosen_experiment(experiment_file, preset or usual, overrides)
    names = study.parse_list(positions or ",".join(LABELS), str, "--positions")
    wanted = sorted(study.parse_lengths(sequence_lengths, "--lengths"))
    trials = list(length_trials(names, seeds, base.seed))
    experiments = {trial.name: experiment_of(base, trial) for trial in trials}
    folder = out or options.default_folder("lengths")
    study.check_folder(folder, "study", overwrite=overwrite, resume=resume)
    console = options.messages()
    with study.shown(console, folder) as display:
        corpus = study.open_corpus(base, cache, display)
        failures = study.run_experiments(
            experiments, folder, display, corpus, cache=cache, jobs=jobs, overwrite=overwrite
        )
        finished = [trial for trial in trials if trial.name not in failures]
        results = score_trials(finished, folder, wanted, cache, display.step)
    result = LengthStudy(names, wanted, results, base)
    report = with_failures(lengths_report(result), failures)
    write_atomically(folder / f"{report.stem}.md", markdown(report).encode())
    study.finish(report, result, base, folder, failures, as_json=as_json)
