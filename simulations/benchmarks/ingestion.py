"""Time and memory of building the token store of a large corpus.

The store is built in a separate process, started as ``python -m simulations.benchmarks.ingestion
CORPUS CACHE``, whose memory is that of the build.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from fedsi.data.corpus import Progress
from fedsi.data.prepare import open_population, prepare
from fedsi.experiment import DataSettings
from simulations.benchmarks.machine import MIB, BenchmarkError, machine, peak_memory
from simulations.benchmarks.own_process import measured_by
from simulations.benchmarks.stack_overflow import write_stack_overflow
from simulations.cli import options
from simulations.cli.display import Display

MEMORY_TARGET = 1536
"""MiB, for any size of the corpus."""


def measure_ingestion(
    folder: Path, clients: int, sentences: int, progress: Progress
) -> dict[str, Any]:
    """Generate a corpus and build its store.

    Args:
        folder: Folder for both.
        clients: Number of clients.
        sentences: Number of sentences of all clients together.
        progress: Called with the progress of the generation; the build reports on standard error.

    Raises:
        BenchmarkError: The build failed, or the store does not match the corpus.
    """
    path = folder / "stackoverflow.sqlite"
    words = write_stack_overflow(path, clients, sentences, 0, progress)
    built = measured_by("simulations.benchmarks.ingestion", path, folder / "cache")
    expected = {"clients": clients, "sentences": sentences, "words": words}
    found = {key: built[key] for key in expected}
    if found != expected:
        raise BenchmarkError(f"the store holds {found}, the corpus {expected}")
    seconds = built["seconds"]
    return {
        **built,
        "sentences_per_second": round(sentences / seconds),
        "words_per_second": round(words / seconds),
        "corpus_mib": round(path.stat().st_size / MIB),
        "peak_memory_target_mib": MEMORY_TARGET,
        "reached": built["peak_memory_mib"] < MEMORY_TARGET,
        **machine(),
    }


def time_ingestion(corpus: str, cache: str) -> dict[str, Any]:
    """Build a store in this process and return its measurements."""
    data = DataSettings(corpus=corpus, words="spaces", vocabulary="users", vocabulary_size=10_000)
    began = time.perf_counter()
    with Display(options.messages()) as display:
        folder = prepare(data, Path(cache), display.step)
    seconds = time.perf_counter() - began
    description = open_population(folder).description
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return {
        "clients": description.training_clients + description.heldout_clients,
        "sentences": description.training_examples + description.heldout_examples,
        "words": meta["statistics"]["words"],
        "distinct_words": meta["statistics"]["distinct_words"],
        "seconds": round(seconds, 2),
        "peak_memory_mib": round(peak_memory() / MIB),
        "store_mib": round(sum(file.stat().st_size for file in folder.iterdir()) / MIB),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(time_ingestion(*sys.argv[1:])))
