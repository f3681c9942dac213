"""The keys ``data.*``: which texts, and how they become sequences."""

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from fedsi.experiment.field_types import (
    Count,
    Fraction,
    Name,
    OptionalCount,
    OptionalName,
    PositiveNumber,
    Settings,
    SpreadOfLogarithm,
)

MADE_HERE = ("pydocs", "synthetic")
"""Corpora that come with fedsi."""

BY_COUNT, BY_USERS, BYTE_PAIRS = "count", "users", "bpe"
LEARNED_VOCABULARIES = (BY_COUNT, BY_USERS, BYTE_PAIRS)
"""Vocabularies that are learned from the training clients' text."""


class DataSettings(Settings):
    """Which texts, and how they become sequences of word ids."""

    corpus: Name = "pydocs"
    """``pydocs``, ``synthetic``, or the path of a file or folder in any of the known formats."""
    format: Name = "auto"
    """The format of the corpus; auto goes by the path."""
    user_column: OptionalName = None
    """The column that names the client a row belongs to; none for the format's usual ones."""
    text_column: OptionalName = None
    """The column or feature with the text, one example a row; none for the usual ones."""
    label_column: OptionalName = None
    """The column or feature that ``partition = "dirichlet"`` goes by; none for the group."""
    delimiter: OptionalName = None
    """What separates the fields of a CSV file: one character, or ``tab``; none to go by its first
    lines."""
    bad_rows: Literal["refuse", "skip"] = "refuse"
    """Rows of a file that are not well-formed end the reading, or are left out and counted."""
    split: OptionalName = None
    """The corpus's own split to use; none for all of its rows."""
    heldout_split: OptionalName = None
    """The corpus's own split to evaluate on; none to hold out by ``heldout_by``."""
    heldout_by: Literal["groups", "clients", "sentences"] = "groups"
    """What is held out: whole groups (clients if there is but one group), clients, or sentences."""
    heldout_fraction: Fraction = 0.1
    """Share of the clients, or of each client's sentences, that is never trained on."""
    group_separator: OptionalName = None
    """A client's group is its id up to this; none for the corpus's own groups."""
    words: Literal["letters", "punctuation", "spaces", "characters"] = "letters"
    """Words with a letter in them and emoji (``letters``); numbers and punctuation too; whatever
    white space separates, for text that was cut into tokens before; or single characters, for
    languages without spaces."""
    vocabulary: Name = "count"
    """The most frequent words (``count``), those that most clients use (``users``), byte pairs
    (``bpe``), or the path of a word list or a tokenizer.json."""
    vocabulary_size: Annotated[Count, Field(le=10**7)] = 4000
    """Words that have an id of their own; four special tokens are added."""
    sequence_length: Annotated[Count, Field(le=2**16)] = 20
    """Words of an example."""
    long_texts: Literal["cut", "split"] = "cut"
    """What becomes of a text's words beyond the sequence length: they are not used (``cut``, as in
    the literature's figures), or they become further examples (``split``)."""
    max_examples_per_client: OptionalCount = 256
    """Examples of a client used in one round, drawn anew each round; none for all. With DP-SGD on
    the device no cap, but the number with which batches have ``client.batch_size`` on average."""
    partition: Literal["natural", "iid", "dirichlet", "power_law"] = "natural"
    """Whose the training rows are: the corpus's clients', or clients' they are dealt to anew."""
    partition_clients: OptionalCount = None
    """Clients to deal to; none for as many training clients as the corpus has."""
    partition_concentration: PositiveNumber = 0.3
    """Of the Dirichlet distribution of each label over clients; small is heterogeneous."""
    partition_exponent: PositiveNumber = 1.0
    """Of the power law of client sizes."""
    population: Annotated[Count, Field(le=10**8)] = 1000
    """Number of clients of the synthetic corpus."""
    population_seed: Annotated[int, Strict(), Field(ge=0, lt=2**63)] = 0
    """Seed of the synthetic corpus and of partitions; experiments of all seeds share it."""
    topic_concentration: PositiveNumber = 0.3
    """Of the Dirichlet distribution of a synthetic client's topics; small is heterogeneous."""
    median_examples: PositiveNumber = 40.0
    """Median of the log-normal number of examples of a synthetic client."""
    examples_sigma: SpreadOfLogarithm = 0.7
    """Standard deviation of the logarithm of that number."""

    @property
    def vocabulary_is_a_file(self) -> bool:
        """Whether the vocabulary is given as a file, and not learned from the corpus."""
        return self.vocabulary not in LEARNED_VOCABULARIES

    @model_validator(mode="after")
    def _only_files_have_columns(self) -> Self:
        for key in ("format", "user_column", "text_column", "delimiter", "bad_rows"):
            given = getattr(self, key) != type(self).model_fields[key].default
            if given and self.corpus in MADE_HERE:
                raise ValueError(
                    f"data.{key} has no effect with data.corpus={self.corpus}, which is no file; "
                    "leave it out or name a file with data.corpus"
                )
        return self

    @model_validator(mode="after")
    def _delimiter_is_one_character(self) -> Self:
        named = self.delimiter or "tab"
        if named != "tab" and (len(named) > 1 or named in '"\r\n'):
            raise ValueError(
                f"data.delimiter = {named!r} is not allowed: expected one character such as ; or "
                "|, or the word tab"
            )
        return self

    @model_validator(mode="after")
    def _heldout_split_differs(self) -> Self:
        if self.heldout_split is not None and self.heldout_split == self.split:
            raise ValueError(
                f"data.heldout_split = {self.heldout_split!r} is also data.split; a split cannot "
                "be trained on and held out"
            )
        return self
