"""Reports of the parts of a corpus that a population cannot use."""

from fedsi.data.population import Description

MUCH = 0.05
"""Share above which a report is a warning."""

MANY_UNKNOWN = 0.5
"""Share of training words missing from the vocabulary above which it is reported; a tenth is
usual."""

MANY_WITHOUT_SPACES = 0.2
"""Share of characters of scripts without spaces above which it is reported."""

MANY_SIGNS = 0.25
"""Share of tokens that are not words above which it is reported; about a fifth in prose."""

MUCH_MARKUP = 0.05
"""Share of tokens that are markup above which it is reported."""

MANY_KNOWN = 0.25
"""Share of held-out sentences that also occur in training above which it is reported."""


def shortfall(description: Description) -> list[str]:
    """Return a sentence for each way in which text was left out; warnings begin with "warning".

    Args:
        description: The population's description.
    """
    return [
        f"warning: {sentence}" if share > MUCH else sentence
        for share, sentence in (
            _rows(description),
            _words(description),
            _unknown(description),
            _known(description),
            _clients(description),
            _scripts(description),
            _signs(description),
            _markup(description),
        )
        if share
    ]


def _rows(description: Description) -> tuple[float, str]:
    left_out, rows = sum(description.rows_left_out.values()), description.rows
    reasons = ", ".join(f"{n:,} {why}" for why, n in description.rows_left_out.items())
    share = left_out / max(rows, 1)
    return share, (
        f"{description.corpus}: {rows:,} rows read, {rows - left_out:,} used; left out "
        f"({100 * share:.1f} %): {reasons}"
    )


def _words(description: Description) -> tuple[float, str]:
    share = description.words_cut
    return share, (
        f"{description.corpus}: {100 * share:.1f} % of the words are not used, because they come "
        f"after the first {description.sequence_length} of their text (data.sequence_length); "
        "data.long_texts=split makes further examples of them"
    )


def _unknown(description: Description) -> tuple[float, str]:
    share = description.unknown_words
    return share if share > MANY_UNKNOWN else 0.0, (
        f"{description.corpus}: {100 * share:.0f} % of the words to train on are not in the "
        f"vocabulary of {description.vocabulary_size:,} ids; raise data.vocabulary_size, or take "
        "a list of words in the language and spelling of the corpus"
    )


def _known(description: Description) -> tuple[float, str]:
    share = description.heldout_in_training
    return share if share > MANY_KNOWN else 0.0, (
        f"{description.corpus}: {100 * share:.1f} % of the held-out sentences are also training "
        "sentences, so held-out figures flatter; check data.split and data.heldout_split, or "
        "remove what many clients share"
    )


def _clients(description: Description) -> tuple[float, str]:
    empty = description.clients_without_examples
    dealt = description.training_clients + empty
    return empty / max(dealt, 1), (
        f"{description.corpus}: {empty:,} of {dealt:,} clients (without the held-out ones) got no "
        "example and are left out; with a data.partition, use fewer clients or a more even one"
    )


def _scripts(description: Description) -> tuple[float, str]:
    share = description.without_spaces
    return share if share > MANY_WITHOUT_SPACES else 0.0, (
        f"{description.corpus}: {100 * share:.0f} % of the characters belong to scripts without "
        "spaces, in which words cannot be separated; use single characters with "
        "data.words=characters, or parts of words with data.vocabulary=bpe"
    )


def _signs(description: Description) -> tuple[float, str]:
    left_out = {kind: n for kind, n in description.not_words.items() if kind != "markup"}
    share = sum(left_out.values())
    kinds = ", ".join(f"{kind} {100 * part:.1f} %" for kind, part in left_out.items())
    return share if share > MANY_SIGNS else 0.0, (
        f"{description.corpus}: {100 * share:.0f} % of the text's tokens are left out, because "
        f"they are not words ({kinds}; of a sample); data.words=punctuation keeps them"
    )


def _markup(description: Description) -> tuple[float, str]:
    share = description.not_words.get("markup", 0.0)
    return share if share > MUCH_MARKUP else 0.0, (
        f"{description.corpus}: {100 * share:.0f} % of the text's tokens are HTML or addresses of "
        "pages (of a sample), whose letters count as words; remove them from the texts"
    )
