"""``fedsi study`` and ``fedsi sweep``: any study from a file, or from a few options."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsi.errors import UserError
from simulations.cli import options, studies

if TYPE_CHECKING:
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
            help="A study's file, a ready study (compare, coupling, ...), or a study's folder.",
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
    cache: options.Cache = options.CACHE,
) -> None:
    """Run the unfinished runs of a study, and report it.

    A folder holds its study, so that DIR alone continues it.
    """
    from fedsi.experiment import parse_overrides
    from simulations.studies.run import STUDY
    from simulations.studies.study import Study

    place = Path(source)
    if place.is_dir():
        if not (place / STUDY).exists():
            raise UserError(f"{place} holds no study; name a folder that has a {STUDY}")
        if out is not None or overrides:
            raise UserError(
                f"{place} is the folder of a study, which is continued unchanged; leave out --out "
                "and --set, or name the study's file"
            )
        chosen, out, resume = Study.from_file(place / STUDY), place, not overwrite
    else:
        chosen = _named(source)
    if overrides:
        chosen = chosen.updated(experiment=chosen.experiment.updated(parse_overrides(overrides)))
    if seeds is not None:
        chosen = chosen.updated(seeds=seeds)
    studies.carry_out(
        chosen,
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


def _named(source: str) -> "Study":
    """Return the study of a file or a name.

    Raises:
        UserError: There is none.
    """
    from simulations.studies.ready import ready_names, ready_study
    from simulations.studies.study import Study

    if source in ready_names():
        return ready_study(source)
    if Path(source).exists() or source.endswith(".toml"):
        return Study.from_file(Path(source))
    close = difflib.get_close_matches(source, ready_names(), n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UserError(
        f"there is no study {source!r}: it is neither a file, nor a folder, nor one of "
        f"{', '.join(ready_names())}{hint}"
    )
