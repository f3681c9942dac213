"""The page on adding an architecture is executed, and its model meets the contract."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsi import Experiment, UserError
from fedsi.models.table import ARCHITECTURES
from tests.contracts import test_architectures

PAGE = Path(__file__).parents[2] / "docs/add-an-architecture.md"


@pytest.fixture
def average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write the page's files into a folder and add its entry."""
    blocks = re.findall(
        r"^```python file=(\w+\.py)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert [name for name, _ in blocks] == ["average.py", "entry.py"]
    for name, code in blocks:
        (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    exec(compile(blocks[1][1], "entry.py", "exec"), {})
    yield "average"
    del ARCHITECTURES.entries["average"]
    sys.modules.pop("average", None)


def test_the_pages_architecture_meets_the_contract(average: str) -> None:
    contract = test_architectures
    contract.test_layout_and_initial_parameters_agree(average)
    contract.test_logits_have_the_vocabulary_as_the_last_axis(average)
    contract.test_no_word_sees_later_ones(average)
    contract.test_memory_gives_what_reading_anew_gives(average)
    contract.test_a_client_axis_is_as_many_clients(average)
    contract.test_what_is_exported_is_the_model(average)
    contract.test_the_output_layer_reads_its_inputs(average)
    contract.test_keys_without_effect_are_refused(average)


def test_names_near_the_pages_are_told_it(average: str) -> None:
    with pytest.raises(UserError, match=rf"did you mean {average}\?"):
        Experiment(model={"architecture": "avergae"})
