"""``fedsi study`` and ``fedsi sweep``: any study from a file, or from a few options."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsi.errors import UserError
from simulations.cli import options, studies

if TYPE_CHECKING:
    from simulations.studies.series import Series
    from simulations.studies.study import Study

_Part = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Only run the I-th of N parts of the trials."),
]
_Seeds = Annotated[int | None, typer.Option(min=1, max=1000, help="Seeds instead of the study's.")]


def study(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE.toml | NAME | DIR",
            help="A file, a ready study or series (compare, coupling, replication, ...), or the "
            "folder of one.",
            show_default=False,
        ),
    ],
    overrides: options.Overrides = None,
    seeds: _Seeds = None,
    jobs: studies.Jobs = None,
    part: _Part = None,
    out: options.Out = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    track: options.Track = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only print what is left to train, and how long it takes."),
    ] = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Run the unfinished runs of a study or of a series of studies, and report them.

    A folder holds its study, so that DIR alone continues it.
    """
    from simulations.cli.series import carry_out_series, show_cost
    from simulations.studies.study import Study

    place = Path(source)
    if place.is_dir():
        if out is not None or overrides:
            raise UserError(
                f"{place} is the folder of a study, which is continued unchanged; leave out --out "
                "and --set, or name the study's file"
            )
        chosen, out, resume = _of_folder(place), place, not overwrite
    else:
        chosen = _named(source)
    found = [
        _changed(one, overrides, seeds)
        for one in ([chosen] if isinstance(chosen, Study) else chosen.studies)
    ]
    if dry_run:
        show_cost(found, out, cache=cache, jobs=jobs, as_json=as_json)
        return
    if not isinstance(chosen, Study):
        if part is not None or overwrite:
            raise UserError(
                "a series takes neither --part nor --overwrite; name one of its studies"
            )
        series = chosen.model_copy(update={"studies": tuple(found)})
        carry_out_series(series, out, cache=cache, jobs=jobs, as_json=as_json, track=track)
        return
    studies.carry_out(
        found[0],
        out,
        cache=cache,
        jobs=jobs,
        overwrite=overwrite,
        resume=resume,
        as_json=as_json,
        track=track,
        part=part,
    )


def sweep(
    experiment_file: options.ExperimentFile = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=a,b,c", help="A key and its values; may be given several times."),
    ] = None,
    seeds: studies.Seeds = 1,
    jobs: studies.Jobs = None,
    out: options.Out = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    track: options.Track = None,
    cache: options.Cache = options.CACHE,
) -> None:
    """Run every combination of some keys' values, and choose the best on validation clients."""
    from simulations.studies.study import Study

    if not vary:
        raise UserError(
            "a sweep needs something to vary; give for example --vary server.learning_rate=0.01,0.1"
        )
    base = options.chosen_experiment(experiment_file, preset, overrides)
    axes = studies.varied(vary)
    chosen = Study(
        name="sweep",
        experiment=base,
        axes=axes,
        tune=tuple(axis.called for axis in axes),
        seeds=seeds,
    )
    studies.carry_out(
        chosen,
        out,
        cache=cache,
        jobs=jobs,
        overwrite=overwrite,
        resume=resume,
        as_json=as_json,
        track=track,
    )


def _of_folder(folder: Path) -> "Study | Series":
    """Return the study or the series of a folder.

    Raises:
        UserError: It holds neither.
    """
    from simulations.studies.run import STUDY
    from simulations.studies.series import SERIES, Series
    from simulations.studies.study import Study

    if (folder / SERIES).exists():
        return Series.from_file(folder / SERIES)
    if not (folder / STUDY).exists():
        raise UserError(f"{folder} holds no study; name a folder that has a {STUDY}")
    return Study.from_file(folder / STUDY)


def _changed(study: "Study", overrides: list[str] | None, seeds: int | None) -> "Study":
    """Return a study with other keys and another number of seeds, where they are given."""
    from fedsi.experiment import parse_overrides

    if overrides:
        study = study.updated(experiment=study.experiment.updated(parse_overrides(overrides)))
    return study if seeds is None else study.updated(seeds=seeds)


def _named(source: str) -> "Study | Series":
    """Return the study or series of a file or a name.

    Raises:
        UserError: There is none.
    """
    from simulations.studies.ready import (
        ready_names,
        ready_series,
        ready_series_names,
        ready_study,
    )
    from simulations.studies.series import Series, is_series
    from simulations.studies.study import Study

    if source in ready_names():
        return ready_study(source)
    if source in ready_series_names():
        return ready_series(source)
    if Path(source).exists() or source.endswith(".toml"):
        path = Path(source)
        return Series.from_file(path) if is_series(path) else Study.from_file(path)
    names = [*ready_names(), *ready_series_names()]
    close = difflib.get_close_matches(source, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UserError(
        f"there is no study {source!r}: it is neither a file, nor a folder, nor one of "
        f"{', '.join(names)}{hint}"
    )
