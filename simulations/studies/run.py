"""Execution of a study: all its trials, or by halving."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from fedsi.data.corpus import Progress, silent
from fedsi.data.population import Description, Population
from fedsi.data.prepare import open_population, prepare_for
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.experiment.experiment import WAITING
from fedsi.experiment.paths import is_path
from fedsi.files import make_folder, write_atomically
from fedsi.models.build import build_model
from fedsi.threads import available_cores
from server.round_record import RoundRecord
from server.runs.extension import first_difference
from simulations.evaluation import baselines_of
from simulations.kept_results import keep_baselines, keep_suggested, kept_suggested
from simulations.safe_text import typed
from simulations.studies.continuation import begin_with
from simulations.studies.halving import (
    Seeded,
    best_combinations,
    last_stages,
    seeded,
    shorter_runs,
)
from simulations.studies.part import StudyPart
from simulations.studies.privacy_levels import Level, level_of
from simulations.studies.results import RUNS, StudyResult, TrialResult, read_results
from simulations.studies.runner import TrialError, check_same, run_trials
from simulations.studies.study import STUDY, Combination, Study, Trial, name_of
from simulations.studies.suggested import Suggested, suggested_rates

FEWEST_VALIDATION_CLIENTS = 5
"""Fewest validation clients on which settings are chosen."""


@dataclass
class StudyRun:
    """The execution of a study in a folder.

    Args:
        study: The study; its paths are absolute.
        folder: Its folder.
        population: The clients.
        cache: Folder for corpora and populations.
        jobs: Trials that run at the same time; None for one per core.
        fresh: Restart every trial, whatever its folder holds.
        on_records: Called with a trial's name, its rounds so far, and their planned number.
        progress: Called with the progress of the n-gram models.
    """

    study: Study
    folder: Path
    population: Population
    cache: Path
    jobs: int | None = None
    fresh: bool = False
    on_records: Callable[[str, Sequence[RoundRecord], int], None] = lambda *_: None
    progress: Progress = silent
    failures: dict[str, str] = field(default_factory=dict)
    """Reasons of trials that could not be run."""

    def check(self) -> None:
        """Refuse a study that cannot be run here, or a folder of another study.

        Raises:
            UserError: An architecture cannot be built, there are too few held-out clients, or the
                folder holds another study, experiment or corpus, or trials that this one lacks.
        """
        description = self.population.description
        trials = self.study.trials()
        for trial in trials:
            build_model(trial.experiment, description.vocabulary_size)
        most = self.study.experiment.server.evaluation_clients
        evaluated = min(most, description.heldout_clients)
        chooses = len({self.study.part(t.points, "tune") for t in trials}) > 1
        if chooses and evaluated // 2 < FEWEST_VALIDATION_CLIENTS:
            raise UserError(
                f"{evaluated} held-out clients are too few to choose on one half and report on the "
                f"other: at least {2 * FEWEST_VALIDATION_CLIENTS} are needed; "
                f"{_more_heldout(description, most)}, or give each tuned key one value"
            )
        if self.fresh:
            return
        _check_same_study(self.study, self.folder)
        check_same({t.name: t.experiment for t in trials}, self._runs, self._population_of)

    def run(self) -> StudyResult:
        """Run unfinished trials, and return the results of all.

        Raises:
            TrialError: No trial finished.
        """
        self._begin()
        stages = self._halve() if self.study.design == "halving" else [self._all()]
        results = last_stages(stages)
        if not results:
            raise TrialError(self.failures)
        return self.result(results, shorter_runs(stages, results))

    def run_part(self, part: StudyPart) -> None:
        """Run the unfinished trials of a part, while other processes run the other parts."""
        self._begin()
        self._run(part.trials(self.study), fresh=False)

    def _population_of(self, experiment: Experiment) -> Population:
        """Return the population of a trial, which differs if an axis varies data or task."""
        base = self.study.experiment
        if (experiment.task, experiment.data) == (base.task, base.data):
            return self.population
        return open_population(prepare_for(experiment, self.cache, self.progress))

    def _begin(self) -> None:
        """Create the folder with the n-gram models' counts, which the trials find in the cache."""
        make_folder(self._runs)
        write_atomically(self.folder / STUDY, self.study.to_toml().encode())
        base = self.study.experiment
        found = baselines_of(base, self.population, self.cache, self.progress)
        keep_baselines(found, self.folder)

    def result(
        self, results: Sequence[TrialResult], shorter: Sequence[TrialResult] = ()
    ) -> StudyResult:
        """Return trials' results with the baselines; ``shorter`` as in ``StudyResult``."""
        base = self.study.experiment
        compared = baselines_of(base, self.population, self.cache, self.progress)
        suggested = self._suggested() if self.study.suggest else {}
        return StudyResult(self.study, results, compared, self.levels(), suggested, shorter)

    def _suggested(self) -> Suggested:
        """Return the suggested learning rates, and keep them in the study's folder."""
        known = {} if self.fresh else kept_suggested(self.folder)
        found = suggested_rates(self.study, self._population_of, known, self.progress)
        keep_suggested(found, self.folder)
        return found

    def levels(self) -> dict[Combination, Level]:
        """Return the privacy cost of each combination, if the levels are of noise."""
        return levels_of(self.study, self.population.description.training_clients)

    @property
    def _runs(self) -> Path:
        return self.folder / RUNS

    def _all(self) -> list[TrialResult]:
        trials = self.study.trials()
        self._run(trials, fresh=self.fresh)
        return self._read(trials)

    def _halve(self) -> list[list[TrialResult]]:
        """Run all combinations for few rounds, then the best ones for more rounds, and so on.

        Returns:
            The results of each stage. Those that an earlier study with fewer values continued, and
            this one would not, are among them.
        """
        kept = every = self.study.combinations()
        found: list[list[TrialResult]] = []
        for stage, following in zip_longest(stages := self.study.stages(), stages[1:]):
            if not kept:
                break
            trials = self.study.stage_trials(stage, kept)
            if found:
                last = last_stages(found)
                self._continue_shorter(trials, {seeded(one.trial): one.name for one in last})
            self._run(trials, fresh=self.fresh and not found)
            results = self._read(self.study.stage_trials(stage, every))
            found.append(results)
            if following:
                kept = best_combinations(StudyResult(self.study, results), kept, following.settings)
        return found

    def _continue_shorter(self, trials: Sequence[Trial], found: Mapping[Seeded, str]) -> None:
        """Let trials begin with the rounds of their shorter runs, if those are the same.

        Args:
            trials: The trials.
            found: Names of the finished shorter runs.
        """
        for trial in trials:
            path = self._runs / trial.name
            if self.fresh:
                shutil.rmtree(path, ignore_errors=True)
            if shorter := found.get(seeded(trial)):
                begin_with(self._runs / shorter, path, trial.experiment)

    def _run(self, trials: Sequence[Trial], *, fresh: bool) -> None:
        experiments = {trial.name: trial.experiment for trial in trials}
        self.failures |= run_trials(
            experiments,
            self._runs,
            self.cache,
            self.jobs or available_cores(),
            fresh=fresh,
            on_records=lambda name, records: self.on_records(
                name, records, experiments[name].server.rounds
            ),
            lengths=self.study.lengths,
        )

    def _read(self, trials: Sequence[Trial]) -> list[TrialResult]:
        return read_results([t for t in trials if t.name not in self.failures], self.folder)


def levels_of(study: Study, training_clients: int) -> dict[Combination, Level]:
    """Return the privacy cost of each combination of a study, if its levels are of noise.

    Tuned keys may change the cost too, for example a cohort size.

    Raises:
        UserError: No noise reaches a target, or the numbers have no accounting.
    """
    found: dict[Combination, Level] = {}
    known: dict[str, Level] = {}
    for points in study.combinations():
        keys = {key for point in study.part(points, "level") for key, _ in point.changes}
        if not any(key.startswith("privacy.") for key in keys):
            continue
        experiment = study.trial(points, study.experiment.seed).experiment
        if experiment.privacy.mechanism != "none":
            # Of the tuned keys, the rate is the most common one, and costs no privacy.
            server = experiment.server.model_dump_json(exclude={"learning_rate"})
            same = f"{experiment.privacy.model_dump_json()} {server}"
            if same not in known:
                known[same] = level_of(experiment, training_clients)
            found[points] = known[same]
    return found


def _check_same_study(study: Study, folder: Path) -> None:
    """Refuse to continue a folder of another study; more values and seeds are allowed.

    Raises:
        UserError: It is another study, or has trials that this one lacks.
    """
    if not (folder / STUDY).exists():
        return
    other = Study.from_file(folder / STUDY)
    ours, theirs = ({axis.called for axis in one.axes} for one in (study, other))
    if ours != theirs or study.name != other.name:
        raise UserError(
            f"{folder} holds another study: {other.name} varies {_words(theirs)}, and {study.name} "
            f"varies {_words(ours)}; replace it with --overwrite, or name another folder with --out"
        )
    if not study.experiment.continues(other.experiment):
        raise UserError(
            f"{folder} holds a study of another experiment "
            f"({first_difference(other.experiment, study.experiment, WAITING)}); "
            f"{_if_moved(study, other, folder)}replace all runs with --overwrite, or name another "
            "folder with --out"
        )
    lacking = _lacking(study, other)
    if lacking:
        raise UserError(
            f"{folder} holds a study with {lacking}, which this one lacks, and a study is only "
            "continued with more values and seeds; keep it, or name another folder with --out"
        )


def _lacking(study: Study, other: Study) -> str:
    """Return the first value, seed or trial of another study that a study lacks, or nothing.

    The runs of such trials would be neither reported nor counted in the privacy cost of all runs.
    """
    ours = _trial_names(study)
    missing = next((named for named in _trial_names(other).items() if named[0] not in ours), None)
    if missing is None:
        return ""
    name, (points, seed) = missing
    known = {(point.axis, point.value) for some, _ in ours.values() for point in some}
    for point in points:
        if (point.axis, point.value) not in known:
            return f"{point.axis} = {point.text}"
    if seed not in {one for _, one in ours.values()}:
        return f"the seed {seed}"
    return f"the trial {name}"


def _trial_names(study: Study) -> dict[str, Seeded]:
    """Return every trial that a study may run by the name of its folder, in all its stages."""
    combinations = study.combinations()
    return {
        name_of(points, seed, stage.rounds): (points, seed)
        for stage in study.stages()
        for seed in stage.seeds
        for points in combinations
    }


def _if_moved(study: Study, other: Study, folder: Path) -> str:
    """Return the advice for a corpus that is at another place, if nothing else differs."""
    corpus = study.experiment.data.corpus
    if study.experiment != other.experiment.updated({"data.corpus": corpus}):
        return ""
    if not is_path("data.corpus", corpus):
        return ""
    command = f"fedsi study {typed(folder)} --corpus {typed(Path(corpus))}"
    return f"if it is that corpus, moved: {command}; or "


def _words(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _more_heldout(description: Description, evaluated: int) -> str:
    """Return the advice with which a study evaluates enough clients to choose on half of them."""
    needed = 2 * FEWEST_VALIDATION_CLIENTS
    if evaluated < needed <= description.heldout_clients:
        return f"set server.evaluation_clients={needed}"
    clients = description.training_clients + description.heldout_clients
    fraction = math.ceil(100 * needed / clients) / 100
    return f"set data.heldout_fraction={fraction:.2g}" if fraction <= 0.5 else "bring more clients"
