"""``fedsi compare``: architectures over client learning rates and seeds."""

from typing import Annotated

import typer

from simulations.cli import options, study


def compare(
    experiment_file: options.ExperimentFile = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    architectures: study.Architectures = "cifg,si_cifg",
    client_learning_rates: Annotated[
        str, typer.Option(metavar="RATE,...", help="Client learning rates to try for each.")
    ] = "0.3,1,3",
    seeds: study.Seeds = 1,
    jobs: study.Jobs = None,
    out: options.Out = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Run every combination and write one table, one figure and one page."""
    from simulations.reports.comparison import comparison_report
    from simulations.reports.study import with_failures
    from simulations.studies.compare import LEARNING_RATE, Comparison, experiment_of
    from simulations.studies.grid import grid, read_results

    base = options.chosen_experiment(experiment_file, preset, overrides)
    names = study.parse_list(architectures, str, "--architectures")
    rates = study.parse_list(client_learning_rates, float, "--client-learning-rates")
    trials = list(grid(names, LEARNING_RATE, rates, seeds, base.seed))
    experiments = {trial.name: experiment_of(base, trial) for trial in trials}
    folder = out or options.default_folder("compare")
    study.check_folder(folder, "comparison", overwrite=overwrite, resume=resume)
    console = options.messages()
    with study.shown(console, folder) as display:
        corpus = study.open_corpus(base, cache, display)
        failures = study.run_experiments(
            experiments, folder, display, corpus, cache=cache, jobs=jobs, overwrite=overwrite
        )
    finished = [trial for trial in trials if trial.name not in failures]
    comparison = Comparison(names, rates, read_results(finished, folder))
    report = with_failures(comparison_report(comparison), failures)
    study.finish(report, comparison, base, folder, failures, as_json=as_json)
