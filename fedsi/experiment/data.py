"""The keys ``data.*``: the corpus, and how it becomes sequences."""

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
"""Corpora included with fedsi."""

BY_COUNT, BY_USERS, BYTE_PAIRS = "count", "users", "bpe"
LEARNED_VOCABULARIES = (BY_COUNT, BY_USERS, BYTE_PAIRS)
"""Vocabularies learned from the training clients' text."""
PUBLIC = "public"
"""The word list that comes with fedsi."""


class DataSettings(Settings):
    """The corpus, and how it becomes sequences of token ids."""

    corpus: Name = "pydocs"
    """``pydocs``, ``synthetic``, or the path of a file or folder in any known format."""
    format: Name = "auto"
    """Format of the corpus; auto recognises it."""
    user_column: OptionalName = None
    """Column that names the client of a row; none for the format's usual names."""
    text_column: OptionalName = None
    """Column or feature with the text, one example per row; none for the usual names."""
    label_column: OptionalName = None
    """Column or feature with the label for ``partition = "dirichlet"``; none for the group."""
    delimiter: OptionalName = None
    """Field separator of a CSV file: one character, or ``tab``; none to detect it from its first
    lines."""
    bad_rows: Literal["refuse", "skip"] = "refuse"
    """Malformed rows of a file: an error, or left out and counted."""
    split: OptionalName = None
    """The corpus's own split to use; none for all rows."""
    heldout_split: OptionalName = None
    """The corpus's own split to evaluate on; none to hold out by ``heldout_by``."""
    heldout_by: Literal["groups", "clients", "sentences"] = "groups"
    """Unit of holding out: whole groups (clients if there is only one group), clients, or
    sentences."""
    heldout_fraction: Fraction = 0.1
    """Share of the clients, or of each client's sentences, that is held out."""
    group_separator: OptionalName = None
    """A client's group is its id up to this separator; none for the corpus's own groups."""
    words: Literal["letters", "punctuation", "spaces", "characters"] = "letters"
    """Splitting of text: words that contain a letter, and emoji (``letters``); numbers and
    punctuation too; at white space only, for text that is already tokenised; or single characters,
    for languages without spaces."""
    vocabulary: Name = "count"
    """The most frequent words (``count``), the words used by most clients (``users``), byte pairs
    (``bpe``), the list of 9,662 words that comes with fedsi (``public``), or the path of a word
    list or a tokenizer.json."""
    vocabulary_size: Annotated[Count, Field(le=10**7)] = 4000
    """Words with their own id; four special tokens are added."""
    sequence_length: Annotated[Count, Field(le=2**16)] = 20
    """Words in a sequence."""
    long_texts: Literal["cut", "split"] = "cut"
    """Words of a text beyond the sequence length: dropped (``cut``, as in the literature), or used
    as further examples (``split``)."""
    max_examples_per_client: OptionalCount = 256
    """Most examples that a client trains on in one round, drawn again each round; none for all.
    Evaluation always uses all of a client's examples. With DP-SGD on clients it is not a limit, but
    the number of examples that gives batches of ``client.batch_size`` on average."""
    partition: Literal["natural", "iid", "dirichlet", "power_law"] = "natural"
    """Assignment of training rows: to the corpus's clients (``natural``), or to new ones."""
    partition_clients: OptionalCount = None
    """Clients of a partition; none for as many training clients as the corpus has."""
    partition_concentration: PositiveNumber = 0.3
    """Parameter of the Dirichlet distribution of each label over clients; small is
    heterogeneous."""
    partition_exponent: PositiveNumber = 1.0
    """Exponent of the power law of client sizes."""
    population: Annotated[Count, Field(le=10**8)] = 1000
    """Clients of the synthetic corpus."""
    population_seed: Annotated[int, Strict(), Field(ge=0, lt=2**63)] = 0
    """Seed of the synthetic corpus and of partitions, independent of ``seed``."""
    topic_concentration: PositiveNumber = 0.3
    """Parameter of the Dirichlet distribution of a synthetic client's topics; small is
    heterogeneous."""
    median_examples: PositiveNumber = 40.0
    """Median number of examples of a synthetic client, which is log-normal."""
    examples_sigma: SpreadOfLogarithm = 0.7
    """Standard deviation of the logarithm of that number."""

    @property
    def vocabulary_is_a_file(self) -> bool:
        """Whether the vocabulary is a file of the user's."""
        return self.vocabulary not in {*LEARNED_VOCABULARIES, PUBLIC}

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
