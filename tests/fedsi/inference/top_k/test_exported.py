"""Exported output layers give the words of the exact one, for any batch and length."""

import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsi import UserError
from fedsi.inference.export import to_onnx, to_torch_export
from fedsi.inference.reading import TrainedModel
from fedsi.inference.top_k.exported import MODULES, exported_layer
from fedsi.inference.top_k.layer import Choice
from tests.fedsi.inference.test_export import SIZE, expected, trained_model

CHOICE = Choice(count=3, candidates=7)
CASES = [
    torch.randint(0, SIZE, shape, generator=torch.manual_seed(1)) for shape in ((1, 1), (3, 9))
]


def check(trained: TrainedModel, tokens: Tensor, words: Any, scores: Any) -> None:
    logits = expected(trained, tokens).detach()
    logits[..., :4] = -torch.inf
    best = logits.topk(3)
    assert np.array_equal(words, best.indices.numpy())
    np.testing.assert_allclose(scores, best.values.numpy(), atol=1e-4)


@pytest.mark.slow
def test_torch_export_carries_the_layer_of_low_rank() -> None:
    trained = trained_model(architecture="si_cifg", tied_output=True)
    layer = exported_layer(trained, "hire_lr", CHOICE, "torch-export")
    content = io.BytesIO(to_torch_export(trained, layer))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of torch's own code is deprecated by torch
        program = torch.export.load(content).module()
        results = [(tokens, program(tokens)) for tokens in CASES]
    for tokens, (words, scores) in results:
        check(trained, tokens, words.numpy(), scores.detach().numpy())


@pytest.mark.parametrize(
    "name", ["hire_lr", *(pytest.param(n, marks=pytest.mark.slow) for n in ("int8", "hire_q"))]
)
def test_onnx_carries_it(name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    trained = trained_model(architecture="cifg")
    choice = Choice() if name == "int8" else CHOICE
    layer = exported_layer(trained, name, choice, "onnx")
    session = onnxruntime.InferenceSession(to_onnx(trained, layer))
    assert [(one.name, one.shape) for one in session.get_outputs()] == [
        ("words", ["batch", "time", 3]),
        ("scores", ["batch", "time", 3]),
    ]
    for tokens in CASES:
        words, scores = session.run(None, {"tokens": tokens.numpy()})
        if name != "int8":  # whose scores are rounded
            check(trained, tokens, words, scores)
        else:
            assert words.min() >= 4
            near = expected(trained, tokens).gather(-1, torch.from_numpy(words)).detach()
            np.testing.assert_allclose(scores, near, atol=0.1 * float(near.abs().max()))


def test_what_cannot_be_exported_is_said() -> None:
    trained = trained_model(architecture="cifg")
    assert exported_layer(trained, "exact", Choice(), "onnx") is None
    assert set(MODULES) == {"int8", "hire_q", "hire_lr"}
    for name, form, sentence in (
        ("hire_certified", "onnx", "cannot be exported: .* use one of int8, hire_q, hire_lr"),
        ("hire_q", "torch-export", "only ONNX has; use --format onnx, or --output-layer hire_lr"),
    ):
        with pytest.raises(UserError, match=sentence):
            exported_layer(trained, name, Choice(), form)
    with pytest.raises(UserError, match="--candidates 2 is below the 3 words"):
        exported_layer(trained, "hire_lr", Choice(candidates=2), "onnx")
