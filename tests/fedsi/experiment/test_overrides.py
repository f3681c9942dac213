"""Values and keys as people type them."""

from typing import Any

import pytest

from fedsi import Experiment, UserError
from fedsi.experiment import parse_overrides
from fedsi.experiment.explanations import nearest_keys


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("client.learning_rate=.3", 0.3),
        ("client.learning_rate=1.", 1.0),
        ("client.learning_rate= +5E-1 ", 0.5),
        ("data.max_examples_per_client=1e2", 100),
        ("seed=1e3", 1000),
        ("server.rounds=007", 7),
        ("model.tied_output=True", True),
        ("model.projection=FALSE", False),
        ("client.max_steps=None", None),
        ("client.max_steps=~", None),
        ("client.max_steps=null", None),
        ("client.max_steps=none", None),
        ("privacy.mechanism=None", "none"),
        ("model.architecture=CIFG", "cifg"),
        ("data.user_column=0", "0"),
        ("data.text_column=1.0", "1.0"),
        ("data.text_column=true", "true"),
        ("data.user_column=None", None),
        ('data.user_column="None"', "None"),
        ("data.corpus=2024-01-01", "2024-01-01"),
        ("data.corpus=[all].csv", "[all].csv"),
        ("data.corpus=None", "None"),
    ],
)
def test_a_value_is_the_first_reading_that_its_key_takes(pair: str, value: Any) -> None:
    ((key, parsed),) = parse_overrides([pair]).items()
    assert (parsed, type(parsed)) == (value, type(value))
    files = {"data.corpus": "posts.csv"} if "column" in key else {}
    values = Experiment().updated({**files, key: parsed}).flat()
    assert values[key] == ("none" if value is None else value)


@pytest.mark.parametrize("pair", ["server.rounds=1.5", "client.learning_rate=0,3", "seed=1e400"])
def test_what_no_reading_fits_is_refused_as_it_was_typed(pair: str) -> None:
    with pytest.raises(UserError, match="is not allowed"):
        Experiment().updated(parse_overrides([pair]))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("batchsize", ["client.batch_size"]),
        ("client.batchSize", ["client.batch_size"]),
        ("lr", ["client.learning_rate", "server.learning_rate"]),
        ("server.lr", ["server.learning_rate"]),
        ("rounds", ["server.rounds"]),
        ("client.optimiser", ["client.optimizer"]),
        ("server.cohort_sise", ["server.cohort_size"]),
        ("data.max_examples", ["data.max_examples_per_client"]),
        ("data.vocab_size", ["data.vocabulary_size"]),
        ("privacy.epsilon", ["privacy.target_epsilon"]),
        ("early_stopping", []),
        ("patience", ["server.patience"]),
        ("data.language", []),
        ("model.dropout", []),
        ("", []),
    ],
)
def test_a_key_is_suggested_only_if_it_is_near(typed: str, meant: list[str]) -> None:
    assert nearest_keys(typed, sorted(Experiment().flat())) == meant
