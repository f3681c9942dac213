"""``fedsi study`` and ``fedsi sweep``: any study from a file, or from a few options."""

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsi.errors import UserError
from simulations.cli import options, studies
from simulations.cli.option_groups import grouped
from simulations.cli.unreached import tell_unreached

if TYPE_CHECKING:
    from simulations.studies.series import Series
    from simulations.studies.study import Study

_Part = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Only run the I-th of N parts of the trials."),
]
_Seeds = Annotated[int | None, typer.Option(min=1, max=1000, help="Seeds instead of the study's.")]


@grouped
def study(
    *,
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
    part: _Part = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only print what is left to train, and how long it takes."),
    ] = False,
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="With DIR: where the corpus of its runs is now, if it has been moved.",
        ),
    ] = None,
    how: studies.How,
) -> None:
    """Run the unfinished runs of a study or of a series of studies, and report them.

    A folder holds its study, so that DIR alone continues it.
    """
    from simulations.cli.series import carry_out_series, show_cost
    from simulations.studies.study import Study

    place = Path(source)
    if place.is_dir() and (how.out is None or not _is_ready(source)):
        if how.out is not None or overrides:
            raise UserError(
                f"{place} is the folder of a study, which is continued unchanged; leave out --out "
                "and --set, or name the study's file"
            )
        chosen, how = _of_folder(place), replace(how, out=place, resume=not how.overwrite)
        chosen = _with_corpus(place, chosen, corpus, how.cache)
    elif corpus is not None:
        raise UserError(
            f"--corpus {corpus} says where the corpus of a study's runs is now; name the folder of "
            f"that study, not {source}"
        )
    else:
        chosen = _named(source)
    members = (chosen,) if isinstance(chosen, Study) else chosen.studies
    tell_unreached(members, overrides or [])
    found = [_changed(one, overrides, seeds) for one in members]
    if dry_run:
        show_cost(found, how.out, cache=how.cache, jobs=how.jobs, as_json=how.as_json)
        return
    if not isinstance(chosen, Study):
        if part is not None or how.overwrite:
            raise UserError(
                "a series takes neither --part nor --overwrite; name one of its studies"
            )
        series = chosen.model_copy(update={"studies": tuple(found)})
        carry_out_series(
            series, how.out, cache=how.cache, jobs=how.jobs, as_json=how.as_json, track=how.track
        )
        return
    studies.carry_out(found[0], how, part)


@grouped
def sweep(
    *,
    base: options.Base,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=a,b,c", help="A key and its values; may be given several times."),
    ] = None,
    seeds: studies.Seeds = 1,
    how: studies.How,
) -> None:
    """Run every combination of some keys' values, and choose the best on validation clients."""
    from simulations.studies.study import Study

    if not vary:
        raise UserError(
            "a sweep needs something to vary; give for example --vary server.learning_rate=0.01,0.1"
        )
    axes = studies.varied(vary)
    chosen = Study(
        name="sweep",
        experiment=base.experiment(),
        axes=axes,
        tune=tuple(axis.called for axis in axes),
        seeds=seeds,
    )
    tell_unreached([chosen], base.overrides or [])
    studies.carry_out(chosen, how)


def _of_folder(folder: Path) -> "Study | Series":
    """Return the study or the series of a folder.

    Raises:
        UserError: It holds neither.
    """
    from simulations.studies.series import SERIES, Series
    from simulations.studies.study import STUDY, Study

    if (folder / SERIES).exists():
        return Series.from_file(folder / SERIES)
    if not (folder / STUDY).exists():
        raise UserError(f"{folder} holds no study; name a folder that has a {STUDY}")
    return Study.from_file(folder / STUDY)


def _with_corpus(
    folder: Path, found: "Study | Series", moved: Path | None, cache: Path
) -> "Study | Series":
    """Return the study of a folder with the place where its corpus is now.

    Raises:
        UserError: It is not where it was, or ``moved`` is another one or names that of a series.
    """
    from simulations.cli.display import Display
    from simulations.moved_corpus import with_corpus_at
    from simulations.studies.moved import move_corpus_of_study
    from simulations.studies.study import Study

    if not isinstance(found, Study):
        if moved is not None:
            raise UserError(
                f"{folder} is the folder of a series, whose studies may have different corpora; "
                f"name that of a study with --corpus, such as {folder / found.studies[0].name}"
            )
        return found
    if moved is None:
        with_corpus_at(folder, found.experiment, None)
        return found
    with Display(options.messages()) as display:
        return move_corpus_of_study(folder, moved, cache, display.step)


def _changed(study: "Study", overrides: list[str] | None, seeds: int | None) -> "Study":
    """Return a study with other keys and another number of seeds, where they are given."""
    from fedsi.experiment import parse_overrides

    if overrides:
        study = study.updated(experiment=study.experiment.updated(parse_overrides(overrides)))
    return study if seeds is None else study.updated(seeds=seeds)


def _is_ready(source: str) -> bool:
    from simulations.studies.ready import ready_names, ready_series_names

    return source in {*ready_names(), *ready_series_names()}


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
