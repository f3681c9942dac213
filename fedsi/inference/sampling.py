"""Writing on: words drawn one after the other from what the model expects."""

from dataclasses import dataclass

import numpy as np

from fedsi.data.protocol import EOS, FIRST_WORD
from fedsi.inference.reading import Reading, TrainedModel, read_more
from fedsi.seeds import Purpose, generator


@dataclass(frozen=True)
class Written:
    """What was drawn."""

    tokens: tuple[int, ...]
    """The words' ids."""
    ended: bool
    """Whether the sentence ended by itself."""


def write_on(
    trained: TrainedModel,
    reading: Reading,
    *,
    length: int,
    temperature: float,
    most: int | None,
    seed: int,
) -> Written:
    """Draw the words that follow, a pure function of the arguments.

    Probabilities are raised to the power 1/temperature. ``pad``, ``bos`` and ``oov`` are never
    drawn: they are no words. Where the model's learned positions end, so does the text.

    Args:
        trained: The model.
        reading: What has been read.
        length: The most words to draw; ``eos`` ends the text before.
        temperature: 1 draws as the model expects, less makes the likely words likelier.
        most: Draw from this many likeliest ones only (Fan et al., arXiv 1805.04833); None for all.
        seed: Everything random follows from it.

    """
    uniform = generator(seed, Purpose.WRITING)
    words: list[int] = []
    while len(words) < length:
        scores = reading.log_probabilities.numpy() / temperature
        token = _draw(scores, most, uniform.random())
        if token == EOS:
            return Written(tuple(words), ended=True)
        words.append(token)
        if len(reading.tokens) == trained.model.longest:
            break
        if len(words) < length:  # nobody asks what follows the last one
            reading = read_more(trained, reading, [token])
    return Written(tuple(words), ended=False)


def _draw(scores: np.ndarray[tuple[int], np.dtype[np.float64]], most: int | None, at: float) -> int:
    """Return the id whose share of the line from 0 to 1 holds a place on it."""
    allowed = np.append(EOS, np.arange(FIRST_WORD, len(scores)))
    # Stable, so that among equals the lower id comes first.
    order = allowed[np.argsort(-scores[allowed], kind="stable")][:most]
    weights = np.exp(scores[order] - scores[order[0]])
    line = np.cumsum(weights)
    place = int(np.searchsorted(line, at * line[-1], side="right"))
    return int(order[min(place, len(order) - 1)])
