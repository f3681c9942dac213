"""Exported models give the model's logits for any batch size and length."""

import io
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsi import Experiment
from fedsi.data.vocabulary import WordVocabulary
from fedsi.errors import UserError
from fedsi.inference.export import to_onnx, to_torch_export
from fedsi.inference.reading import TrainedModel
from fedsi.models.build import build_model
from tests.built_in import used

SIZES = {"embedding_size": 8, "hidden_size": 6, "heads": 2, "feedforward_size": 10, "layers": 1}
MODELS: list[dict[str, Any]] = [
    {"architecture": "cifg"},
    {"architecture": "si_cifg", "embedding_normalisation": "none", "projection": False},
    {"architecture": "lstm", "recurrent_projection": True, "tied_output": True},
    {"architecture": "transformer", "positions": "learned", "tied_output": True},
    {"architecture": "si_transformer", "positions": "fire"},
    {"architecture": "mamba", "state_size": 5},
]
SHAPES = ((1, 1), (3, 2), (2, 20))
FARTHER = (4, 33)
VOCABULARY = WordVocabulary("abcdefg")
SIZE = len(VOCABULARY)


def trained_model(**changes: Any) -> TrainedModel:
    model = build_model(Experiment(model=used(**{**SIZES, **changes})), SIZE)
    flat = torch.randn(model.layout.size, generator=torch.Generator().manual_seed(5)) / 2
    return TrainedModel(model, model.layout.views(flat), VOCABULARY)


def cases(trained: TrainedModel) -> list[Tensor]:
    """Return token ids of several shapes, longer than in training if the model allows it."""
    shapes = SHAPES if trained.model.longest else (*SHAPES, FARTHER)
    return [torch.randint(0, SIZE, shape) for shape in shapes]


def expected(trained: TrainedModel, tokens: Tensor) -> Tensor:
    features = trained.model.features(trained.parameters, tokens)
    return trained.model.logits(trained.parameters, features)


def check_torch_export(trained: TrainedModel) -> None:
    content = io.BytesIO(to_torch_export(trained))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of torch's own code is deprecated by torch
        program = torch.export.load(content).module()
        results = [(tokens, program(tokens)) for tokens in cases(trained)]
    for tokens, logits in results:
        torch.testing.assert_close(logits, expected(trained, tokens), rtol=0, atol=1e-4)


def check_onnx(trained: TrainedModel) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(to_onnx(trained))
    (put,), (get,) = session.get_inputs(), session.get_outputs()
    assert (put.name, put.shape, put.type) == ("tokens", ["batch", "time"], "tensor(int64)")
    assert (get.name, get.shape) == ("logits", ["batch", "time", SIZE])
    for tokens in cases(trained):
        logits = torch.from_numpy(session.run(["logits"], {"tokens": tokens.numpy()})[0])
        torch.testing.assert_close(logits, expected(trained, tokens), rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", MODELS, ids=str)
def test_torch_export_gives_the_models_logits(changes: dict[str, Any]) -> None:
    check_torch_export(trained_model(**changes))


@pytest.mark.parametrize("changes", MODELS, ids=str)
def test_onnx_gives_the_models_logits(changes: dict[str, Any]) -> None:
    check_onnx(trained_model(**changes))


class Pairs(nn.Module):
    """A user's model that reads a word and the previous one."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, 4)
        self.output = nn.Linear(8, vocabulary_size)

    def forward(self, ids: Tensor) -> Tensor:
        vectors = self.embedding(ids)
        before = functional.pad(vectors, (0, 0, 1, 0))[:, :-1]
        logits: Tensor = self.output(torch.cat([vectors, before], -1))
        return logits


def test_models_of_ones_own() -> None:
    check_torch_export(trained_model(architecture=f"{__name__}:Pairs"))
    with pytest.raises(UserError, match=r"own_models:Gru cannot be exported with any batch and"):
        to_torch_export(trained_model(architecture="tests.own_models:Gru"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"the package onnxscript .* pip install 'fedsi\[export\]'"):
        to_onnx(trained_model(architecture="cifg"))


def test_a_model_too_large_for_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedsi.inference.export._MOST_ONNX_BYTES", 100)
    with pytest.raises(UserError, match="holds less than 100; use --format torch-export"):
        to_onnx(trained_model(architecture="cifg"))
