"""Kept results: the same after reading, none of another version, a sentence if damaged."""

from pathlib import Path

import numpy as np
import pytest

from fedsi import UserError
from fedsi.checksums import sealed, unsealed
from fedsi.data.baselines import COLUMNS, NAMES, Baselines
from server.runs.folder import NGRAMS
from simulations.kept_results import (
    keep_baselines,
    keep_membership,
    kept_baselines,
    kept_membership,
)
from simulations.membership import Membership


def test_baselines_are_read_as_they_were(tmp_path: Path) -> None:
    assert kept_baselines(tmp_path) is None
    rows = {name: np.arange(3.0 * len(COLUMNS)).reshape(3, -1) / 7 for name in NAMES}
    keep_baselines(Baselines(np.array([4, 1, 7]), rows), tmp_path)
    found = kept_baselines(tmp_path)
    assert found is not None
    assert found.clients.tolist() == [4, 1, 7]
    assert all((found.rows[name] == rows[name]).all() for name in NAMES)

    content = (tmp_path / NGRAMS).read_bytes()
    values = unsealed(content)
    (tmp_path / NGRAMS).write_bytes(sealed({**values, "columns": ["tokens"]}))
    assert kept_baselines(tmp_path) is None
    (tmp_path / NGRAMS).write_bytes(sealed({**values, "rows": {}}))
    with pytest.raises(UserError, match="is damaged"):
        kept_baselines(tmp_path)
    (tmp_path / NGRAMS).write_bytes(content.replace(b"1", b"2"))  # still numbers
    with pytest.raises(UserError, match="is damaged"):
        kept_baselines(tmp_path)


def test_an_attack_is_read_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was not audited; use: fedsi audit"):
        kept_membership(tmp_path)
    attack = Membership(3, 4, 0.5, 0.1, 0.2, -0.3)
    keep_membership(attack, tmp_path)
    assert kept_membership(tmp_path) == attack
    keep_membership(None, tmp_path)
    assert kept_membership(tmp_path) is None
