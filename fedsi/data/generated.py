"""Generated populations: clients whose examples a task makes on access from (seed, client).

Sizes of the examples, such as numbers of digits, are dealt to the clients by a law, ``task.law``:

* ``one``: each client has one size; client c has the (c mod sizes)-th.
* ``zipf``: each client has one size, drawn with P(k-th smallest) proportional to k^-exponent, so
  that few clients have the largest.
* ``mixed``: every client draws the size of each example anew, all with the same probability.

Held-out clients follow the law of the training clients. The clients after them, one for each size
of ``task.grid``, have examples of that size alone and are evaluated when training has ended. With
``task.fresh`` a client has other examples in each round: its examples go on without end, in blocks
of ``task.examples``, and each round uses the next block.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsi.data.population import Description, load_array, read_meta, write_meta
from fedsi.data.protocol import FIRST_WORD, PAD, Tokens
from fedsi.data.unigram import target_counts, unigram_log_probabilities, unigram_loss
from fedsi.data.vocabulary import WordVocabulary
from fedsi.errors import UserError
from fedsi.experiment import DataSettings, TaskSettings
from fedsi.seeds import Purpose, generator
from fedsi.tasks.table import LABEL_KEYS

KIND = "generated"
SAMPLED_CLIENTS = 50
"""Clients from which the unigram model is estimated."""
MOST_TOKENS = 2**26
"""Most tokens of a client's examples, including padding: 256 MiB."""

Ids = NDArray[np.int64]
Size = tuple[int, ...]
"""The size of an example, such as (digits,) or (digits, operands)."""


@dataclass(frozen=True)
class Generation:
    """The examples of a task that makes its own."""

    symbols: Callable[[TaskSettings], Sequence[str]]
    """The vocabulary without special tokens: symbols of one character."""
    sizes: Callable[[TaskSettings], Sequence[Size]]
    """All sizes of training examples, the smallest first."""
    parse: Callable[[TaskSettings, str], Size]
    """Returns the size that a text such as ``20`` names; raises ``ValueError`` for another text."""
    width: Callable[[TaskSettings, Size], int]
    """Number of tokens in an example of a size, ``bos`` and ``eos`` included."""
    draw: Callable[[TaskSettings, Size, int, np.random.Generator], Tokens]
    """``(settings, size, count, generator)`` -> examples of one size, ``[count, width]``. Each
    begins with ``bos`` and ends with ``eos``; only the draws may differ between two calls."""
    what: str
    """What a size is, in words, such as "digits of an operand"."""


class Recipe(NamedTuple):
    """The task of a generated population, and the seed of its clients."""

    task: TaskSettings
    seed: int


class GeneratedPopulation:
    """Clients whose examples are made on access; only the description is stored.

    Args:
        description: Its numbers of clients bound the client index.
        generation: Makes the examples.
        recipe: The task and the seed.
        unigram: ``Population.unigram_log_probabilities``.
    """

    def __init__(
        self,
        description: Description,
        generation: Generation,
        recipe: Recipe,
        unigram: NDArray[np.float64],
    ) -> None:
        self.description = description
        self.unigram_log_probabilities = unigram
        self.answers = None
        self._generation, self._task, self._seed = generation, recipe.task, recipe.seed
        self._sizes = list(generation.sizes(recipe.task))
        self._grid = [generation.parse(recipe.task, text) for text in description.grid]
        shares = np.arange(1, len(self._sizes) + 1, dtype=np.float64) ** -recipe.task.exponent
        self._zipf = shares / shares.sum()

    def count(self, client: int) -> int:
        """Return how many examples a client has in a round."""
        return self._task.examples if self._place(client) is None else self._task.grid_examples

    def examples(self, client: int, places: Ids | None = None) -> Tokens:
        """Return examples of a client as rows of the protocol.

        Places beyond ``count`` are those of later rounds, and must be of one round. Examples of the
        grid may be longer than the longest ones of training.
        """
        if not 0 <= client < self._clients + len(self._grid):
            raise IndexError(f"client {client} of {self._clients + len(self._grid)}")
        count = self.count(client)
        if places is None:
            places = np.arange(count)
        block = int(places[0]) // count if len(places) else 0
        made = self._block(client, block)
        return made[places - block * count]

    def work(self, client: int, example_cap: int | None) -> int:
        """Return the approximate number of tokens in a client's first examples."""
        count = self.count(client)
        sizes = self._sizes_of(client, 1, self._rng(client, 0))
        width = self._generation.width(self._task, sizes[0])
        return width * min(count, example_cap or count)

    def samples(self) -> Iterator[Tokens]:
        """Yield one example of the longest training size and of each size of the grid."""
        rng = np.random.default_rng(0)
        for size in (self._sizes[-1], *self._grid):
            yield self._generation.draw(self._task, size, 1, rng)[0]

    def width(self, client: int) -> int:
        """Return the number of tokens in a client's longest example of this round or another."""
        place = self._place(client)
        size = self._sizes[-1] if place is None else self._grid[place]
        return self._generation.width(self._task, size)

    def vocabulary(self) -> WordVocabulary:
        """Return the vocabulary of the token ids: a character for each symbol."""
        return WordVocabulary(self._generation.symbols(self._task), "characters")

    def find(self, names: Sequence[str]) -> Ids:
        """Return the index of each client, which is its name; -1 for other names."""
        known = {name: client for client, name in enumerate(self.names())}
        return np.array([known.get(name, -1) for name in names], dtype=np.int64)

    def names(self) -> list[str]:
        """Return the names of all clients, which are their indices."""
        return [str(client) for client in range(self._clients)]

    @property
    def _clients(self) -> int:
        return self.description.training_clients + self.description.heldout_clients

    def _place(self, client: int) -> int | None:
        """Return the place of a client in the grid; None for others."""
        return client - self._clients if client >= self._clients else None

    def _rng(self, client: int, block: int) -> np.random.Generator:
        return generator(self._seed, Purpose.GENERATED_EXAMPLES, block, client)

    def _sizes_of(self, client: int, count: int, rng: np.random.Generator) -> list[Size]:
        """Return the size of each example of a client."""
        place, sizes = self._place(client), self._sizes
        if place is not None:
            return [self._grid[place]] * count
        if self._task.law == "one":
            return [sizes[client % len(sizes)]] * count
        if self._task.law == "zipf":
            own = generator(self._seed, Purpose.GENERATED_SIZES, client=client)
            return [sizes[int(own.choice(len(sizes), p=self._zipf))]] * count
        return [sizes[k] for k in rng.integers(0, len(sizes), count)]

    def _block(self, client: int, block: int) -> Tokens:
        """Make a client's examples of one round, ``[examples, time]``."""
        rng, count = self._rng(client, block), self.count(client)
        sizes = self._sizes_of(client, count, rng)
        width = max(self._generation.width(self._task, size) for size in set(sizes))
        rows = np.full((count, max(width, self.description.sequence_length + 1)), PAD, np.int32)
        for size in sorted(set(sizes)):
            chosen = np.array([one == size for one in sizes])
            made = self._generation.draw(self._task, size, int(chosen.sum()), rng)
            rows[chosen, : made.shape[1]] = made
        return rows

    def on_grid(self, texts: Sequence[str], examples: int) -> "GeneratedPopulation":
        """Return the population with another grid.

        Args:
            texts: The sizes, each as ``Generation.parse`` reads it.
            examples: Examples of each size.

        Raises:
            UserError: One of them is no size of the task, or too large.
        """
        task = self._task.model_copy(update={"grid_examples": examples})
        check_grid(self._generation, task, texts)
        values = self.description.__dict__ | {"grid": list(texts)}
        return GeneratedPopulation(
            Description(**values),
            self._generation,
            Recipe(task, self._seed),
            self.unigram_log_probabilities,
        )


def check_grid(generation: Generation, task: TaskSettings, texts: Sequence[str]) -> None:
    """Refuse sizes of which no examples can be made.

    Raises:
        UserError: One of them is no size of the task, or too large.
    """
    for text in texts:
        try:
            width = generation.width(task, generation.parse(task, text))
        except ValueError as error:
            raise UserError(str(error)) from None
        if width * task.grid_examples > MOST_TOKENS:
            raise UserError(
                f"{task.grid_examples:,} examples of length {text} have {width:,} tokens each, "
                f"more than the {MOST_TOKENS:,} tokens that a client may have in all; choose a "
                "shorter length or fewer examples"
            )


def grid_of(task: TaskSettings) -> list[str]:
    """Return the sizes of the grid as texts."""
    return [text.strip() for text in task.grid.split(",")] if task.grid else []


def make_generated(
    generation: Generation, data: DataSettings, task: TaskSettings
) -> GeneratedPopulation:
    """Make a population; its unigram model is estimated on a sample.

    Args:
        generation: Makes the examples.
        data: ``data.population`` clients, at least 2; at least one of them is held out.
        task: The task's settings.

    Raises:
        UserError: The law leaves a size without a client, or the grid has an impossible size.
    """
    clients = data.population
    if clients < 2:
        raise UserError(
            "data.population = 1 is not allowed: one client to train on and one to hold out are "
            "needed, so at least 2"
        )
    heldout = min(max(1, round(clients * data.heldout_fraction)), clients - 1)
    sizes, grid = generation.sizes(task), grid_of(task)
    if task.law == "one" and clients - heldout < len(sizes):
        raise UserError(
            f"task.law=one gives each of {len(sizes)} sizes to clients of its own, and there are "
            f"{clients - heldout} training clients; raise data.population, narrow the sizes, or "
            "set task.law=mixed"
        )
    check_grid(generation, task, grid)
    symbols = generation.symbols(task)
    facts = (KIND, symbols, recipe_json(task), clients, heldout, data.population_seed)
    content = sha256(repr(facts).encode()).hexdigest()
    blank = Description(
        corpus=task.name,
        corpus_sha256=content,
        content_digest=content,
        training_clients=clients - heldout,
        heldout_clients=heldout,
        training_examples=(clients - heldout) * task.examples,
        heldout_examples=heldout * task.examples,
        vocabulary_size=FIRST_WORD + len(symbols),
        vocabulary_source=KIND,
        sequence_length=max(generation.width(task, size) for size in sizes) - 1,
        unigram_loss=0.0,
        grid=grid,
        fresh=task.fresh,
    )
    recipe = Recipe(task, data.population_seed)
    population = GeneratedPopulation(blank, generation, recipe, np.zeros(blank.vocabulary_size))
    first = clients - heldout
    counts, unseen = (
        sum(
            (target_counts(population.examples(k), blank.vocabulary_size) for k in some),
            np.zeros(blank.vocabulary_size, np.int64),
        )
        for some in (
            range(min(first, SAMPLED_CLIENTS)),
            range(first, first + min(heldout, SAMPLED_CLIENTS)),
        )
    )
    unigram = unigram_log_probabilities(counts)
    values = blank.__dict__ | {"unigram_loss": unigram_loss(unigram, unseen)}
    return GeneratedPopulation(Description(**values), generation, recipe, unigram)


def recipe_json(task: TaskSettings) -> str:
    """Return the keys that examples may depend on, as JSON."""
    fields = type(task).model_fields
    unused = {key for key in LABEL_KEYS if getattr(task, key) == fields[key].default}
    return task.model_dump_json(exclude=unused)


def write_generated(
    folder: Path, generation: Generation, data: DataSettings, task: TaskSettings
) -> None:
    """Make a population and write its folder."""
    population = make_generated(generation, data, task)
    write_meta(
        folder,
        KIND,
        population.description,
        population.unigram_log_probabilities,
        task=task.model_dump(),
        seed=data.population_seed,
    )


def open_generated(folder: Path, generation_of: Callable[[str], Generation]) -> GeneratedPopulation:
    """Open a population that ``write_generated`` made.

    Args:
        folder: Its folder.
        generation_of: Returns the generation of the task with a name.
    """
    meta = read_meta(folder)
    task = TaskSettings(**meta["task"])
    return GeneratedPopulation(
        Description(**meta["description"]),
        generation_of(task.name),
        Recipe(task, meta["seed"]),
        load_array(folder, "unigram")[:],
    )
