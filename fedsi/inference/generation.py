"""Text generation: words drawn one after the other from the model's distribution."""

from dataclasses import dataclass

import numpy as np

from fedsi.data.protocol import EOS, FIRST_WORD
from fedsi.inference.reading import Reading, TrainedModel, read_more
from fedsi.seeds import Purpose, generator


@dataclass(frozen=True)
class GeneratedText:
    """A generated continuation."""

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
) -> GeneratedText:
    """Draw the words that follow; a pure function of the arguments.

    Probabilities are raised to the power 1/temperature. ``pad``, ``bos`` and ``oov`` are never
    drawn, because they are not words. The text ends at the model's last learned position.

    Args:
        trained: The model.
        reading: The text so far.
        length: Largest number of words to draw; ``eos`` ends the text earlier.
        temperature: 1 samples the model's distribution; less favours likely words.
        most: Number of most likely words to draw from (Fan et al., arXiv 1805.04833), or None for
            all.
        seed: The seed of all draws.
    """
    uniform = generator(seed, Purpose.WRITING)
    words: list[int] = []
    while len(words) < length:
        scores = reading.log_probabilities.numpy() / temperature
        token = _draw(scores, most, uniform.random())
        if token == EOS:
            return GeneratedText(tuple(words), ended=True)
        words.append(token)
        if len(reading.tokens) == trained.model.longest:
            break
        if len(words) < length:  # the prediction after the last word is not needed
            reading = read_more(trained, reading, [token])
    return GeneratedText(tuple(words), ended=False)


def _draw(scores: np.ndarray[tuple[int], np.dtype[np.float64]], most: int | None, at: float) -> int:
    """Return the id whose interval of the cumulative distribution contains ``at``."""
    allowed = np.append(EOS, np.arange(FIRST_WORD, len(scores)))
    # The sort is stable, so equal scores are ordered by id.
    order = allowed[np.argsort(-scores[allowed], kind="stable")][:most]
    weights = np.exp(scores[order] - scores[order[0]])
    line = np.cumsum(weights)
    place = int(np.searchsorted(line, at * line[-1], side="right"))
    return int(order[min(place, len(order) - 1)])
