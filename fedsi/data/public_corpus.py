"""A second corpus, read with the vocabulary of a run: the public text of a server."""

from hashlib import sha256
from pathlib import Path

from fedsi.data.cache import DEFAULT_CACHE, cache_folder
from fedsi.data.corpus import Progress, silent
from fedsi.data.population import Population
from fedsi.data.prepare import open_population, prepare
from fedsi.data.vocabulary import Vocabulary, WordVocabulary
from fedsi.errors import UserError
from fedsi.experiment import DataSettings, Experiment
from fedsi.files import make_folder, write_atomically

KEY = "algorithm.public_corpus"


def open_public_corpus(
    experiment: Experiment,
    vocabulary: Vocabulary,
    cache: Path = DEFAULT_CACHE,
    progress: Progress = silent,
) -> Population:
    """Open the public corpus of an experiment, building it if it is not in the cache.

    Its texts become sequences by the run's ``data.sequence_length`` and ``data.long_texts``. All of
    them are used, those of its training clients and of its held-out clients.

    Args:
        experiment: An experiment with ``algorithm.public_corpus``.
        vocabulary: The vocabulary of the run.
        cache: Folder for corpora and populations.
        progress: Called to report progress.

    Raises:
        UserError: The corpus is missing or cannot be used, or has none of the run's words.
    """
    place = experiment.algorithm.public_corpus
    settings = _settings(experiment, vocabulary, _listed(vocabulary, cache_folder(cache)))
    try:
        population = open_population(prepare(settings, cache, progress))
    except UserError as error:
        raise UserError(f"{KEY}={place} cannot be read: {error}") from None
    if population.vocabulary().file_text() != vocabulary.file_text():
        raise UserError(
            f"{KEY}={place} cannot be read with the vocabulary of the run; name the path of a file"
        )
    if population.description.unknown_words == 1:
        raise UserError(
            f"{KEY}={place} has none of the {len(vocabulary):,} words of the run; name text in the "
            "language of the clients"
        )
    return population


def _settings(experiment: Experiment, vocabulary: Vocabulary, listed: Path) -> DataSettings:
    data = experiment.data
    splitting = vocabulary.splitting if isinstance(vocabulary, WordVocabulary) else data.words
    return DataSettings(
        corpus=str(experiment.algorithm.public_corpus),
        heldout_by="sentences",  # so that one client is enough
        heldout_fraction=0.5,
        words=splitting,
        vocabulary=str(listed),
        vocabulary_size=len(vocabulary),  # at least all of its words
        sequence_length=data.sequence_length,
        long_texts=data.long_texts,
    )


def _listed(vocabulary: Vocabulary, cache: Path) -> Path:
    """Write the vocabulary to a file whose name depends on its content, and return the file."""
    content = vocabulary.file_text().encode()
    folder = cache / "vocabularies" / sha256(content).hexdigest()[:24]
    file = folder / vocabulary.file_name
    if not file.exists():
        make_folder(folder)
        write_atomically(file, content)
    return file
