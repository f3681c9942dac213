"""Requests to train that no honest server sends."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import pool
from fedsi import Experiment
from fedsi.data.prepare import open_population, prepare
from fedsi.messages import MessageError, Train
from server.rounds import initial_server_state


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"clip_norm": math.nan}, "a clip norm must be positive"),
        ({"round_number": -1}, "rounds begin with 1"),
        ({"attempt": 10**15}, "a round has 100 repeats at most"),
        ({"clients": np.array([1, 1])}, "a client is requested twice"),
    ],
)
def test_training_that_no_server_asks_for_is_refused(
    smoke: Experiment, cache: Path, changes: dict[str, Any], sentence: str
) -> None:
    faulty = smoke.updated({"faults.raising": 0.5})  # whose draw for an attempt would be allocated
    folder = prepare(faulty.data, cache)
    description = open_population(folder).description
    parameters = initial_server_state(faulty, description).parameters
    request = Train(faulty.to_toml(), 1, parameters, np.arange(3), math.inf)
    with pytest.raises(MessageError, match=sentence):
        pool.train_block(replace(request, **changes), str(folder))
