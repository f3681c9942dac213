"""Results beside a run or a study that its page needs: n-gram models, and attacks of audits."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsi.checksums import sealed, unsealed
from fedsi.data.baselines import COLUMNS, Baselines
from fedsi.errors import UserError
from fedsi.files import write_atomically
from server.runs.folder import AUDIT, NGRAMS
from simulations.safe_text import typed

if TYPE_CHECKING:
    from simulations.membership import Membership

SUGGESTED = "suggested.json"
"""Suggested learning rates of a study, in its folder."""

_MEND = "put back the file that fedsi wrote"


CURVES = "curves.svg"
"""The last file of a finished run, besides the page that is made of them."""


def keep_baselines(found: Baselines | None, folder: Path) -> None:
    """Keep the counts of n-gram models or of rankings, if there are any."""
    if found is None:
        return
    rows = {name: found.rows[name].tolist() for name in found.names}
    values = {"columns": COLUMNS, "clients": found.clients.tolist(), "rows": rows}
    write_atomically(folder / NGRAMS, sealed(values))


def kept_baselines(folder: Path) -> Baselines | None:
    """Read the counts of n-gram models; None if there are none, or another version wrote them.

    Raises:
        UserError: The file is damaged.
    """
    found = _read(folder / NGRAMS)
    if found is None or found.get("columns") != list(COLUMNS):
        return None
    try:
        clients = np.array(found["clients"], np.int64)
        shape = (len(clients), len(COLUMNS))
        rows = {n: np.array(found["rows"][n], np.float64).reshape(shape) for n in found["rows"]}
        if not rows:
            raise ValueError("it has no counts")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / NGRAMS} is damaged: {error}; {_MEND}") from None
    return Baselines(clients, rows)


def keep_suggested(found: Mapping[str, Sequence[float]], folder: Path) -> None:
    """Keep the learning rates that were suggested for a study's combinations."""
    write_atomically(folder / SUGGESTED, sealed({"rates": {k: list(v) for k, v in found.items()}}))


def kept_suggested(folder: Path) -> Mapping[str, Sequence[float]]:
    """Read the suggested learning rates; empty if there are none.

    Raises:
        UserError: The file is damaged.
    """
    found = _read(folder / SUGGESTED)
    try:
        rates = {} if found is None else found["rates"]
        return {name: [float(one) for one in each] for name, each in rates.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / SUGGESTED} is damaged: {error}; {_MEND}") from None


def keep_membership(found: "Membership | None", folder: Path) -> None:
    """Keep the result of the attack on a run's model; None if there can be none."""
    values = {"membership": None if found is None else asdict(found)}
    write_atomically(folder / AUDIT, sealed(values))


def kept_membership(folder: Path) -> "Membership | None":
    """Read the result of the attack on a run's model; None if there was none.

    Raises:
        UserError: The run was not audited, or the file is damaged.
    """
    from simulations.membership import Membership  # noqa: PLC0415 - it imports SciPy's statistics

    found = _read(folder / AUDIT)
    if found is None:
        raise UserError(f"the run in {folder} was not audited; use: fedsi audit {typed(folder)}")
    try:
        attack = found["membership"]
        return None if attack is None else Membership(**attack)
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / AUDIT} is damaged: {error}; {_MEND}") from None


def _read(path: Path) -> Mapping[str, Any] | None:
    if not path.exists():
        return None
    try:
        return unsealed(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}; {_MEND}") from None
