"""The keyboard: suggestions, what is refused, and real keys in a real browser."""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fedsi import Experiment, UserError
from fedsi.data.vocabulary import WordVocabulary
from fedsi.inference.reading import TrainedModel, candidates, read_prompt
from fedsi.models.build import build_model
from simulations.cli.main import main
from simulations.keyboard.server import LONGEST_REQUEST, LONGEST_TEXT, KeyboardServer
from simulations.keyboard.typist import Typist
from tests.browser import browser, needs_chromium
from tests.built_in import used
from tests.fedsi.inference.test_export import trained_model

WORDS = ("the", "then", "there", "king", "<b>bold</b>", "queen", "of", "and")
NAME = "<i>a & b</i>"


def small(architecture: str, seed: int) -> TrainedModel:
    sizes = {"embedding_size": 8, "hidden_size": 6, "heads": 2, "feedforward_size": 10}
    vocabulary = WordVocabulary(WORDS)
    model = build_model(Experiment(model=used(architecture=architecture, **sizes)), len(vocabulary))
    flat = torch.randn(model.layout.size, generator=torch.Generator().manual_seed(seed))
    return TrainedModel(model, model.layout.views(flat), vocabulary)


@pytest.fixture(scope="module")
def server() -> Iterator[KeyboardServer]:
    typists = [
        Typist(NAME, small("cifg", 1), "exact"),
        Typist("second", small("si_cifg", 2), "hire_certified"),
    ]
    with KeyboardServer(0, typists) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def asked(
    server: KeyboardServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, content, dict(reply.getheaders())


def suggested(server: KeyboardServer, text: str) -> dict[str, Any]:
    body = json.dumps({"text": text}).encode()
    status, content, _ = asked(server, "POST", "/suggest", body, Content_Type="application/json")
    assert status == 200
    answer: dict[str, Any] = json.loads(content)
    return answer


def test_suggestions_are_those_of_predict_whatever_was_typed_before(
    server: KeyboardServer,
) -> None:
    models = small("cifg", 1), small("si_cifg", 2)
    for text in ("the king of ", "the king and the ", "the king of the queen ", "of "):
        answer = suggested(server, text)
        for shown, trained in zip(answer["models"], models, strict=True):
            expected = [c.word for c in candidates(trained, read_prompt(trained, text), 3)]
            assert shown["words"] == expected
            assert 0 < shown["milliseconds"] < 10_000
        both = set(answer["models"][0]["words"]) & set(answer["models"][1]["words"])
        assert answer["shared"] == len(both)


def test_a_begun_word_is_completed(server: KeyboardServer) -> None:
    for shown in suggested(server, "the king of The")["models"]:
        assert set(shown["words"]) == {"then", "there"}
    assert suggested(server, "the xq")["models"][0]["words"] == []
    assert len(suggested(server, "")["models"][0]["words"]) == 3


def test_characters_are_read_as_they_are() -> None:
    vocabulary = WordVocabulary("abcdefg", "characters")
    trained = trained_model(architecture="cifg")
    trained = TrainedModel(trained.model, trained.parameters, vocabulary)
    expected = [c.word for c in candidates(trained, read_prompt(trained, "abba"), 3)]
    assert Typist("characters", trained, "exact").answer("abba").words == expected


def test_requests_from_elsewhere_are_refused(server: KeyboardServer) -> None:
    good = json.dumps({"text": "the "}).encode()
    kind = "application/json"
    port = server.server_port
    for status, body, headers in (
        (403, good, {"Content_Type": kind, "Host": f"attacker.example:{port}"}),
        (403, good, {"Content_Type": kind, "Host": "127.0.0.1:1"}),
        (403, good, {"Content_Type": kind, "Origin": "http://attacker.example"}),
        (403, good, {"Content_Type": "text/plain"}),
        (413, good, {"Content_Type": kind, "Content_Length": str(LONGEST_REQUEST + 1)}),
        (413, good, {"Content_Type": kind, "Content_Length": "-1"}),
        (400, b"[" * 9000, {"Content_Type": kind}),
        (400, b"{}", {"Content_Type": kind}),
        (400, b"\xff", {"Content_Type": kind}),
        (400, json.dumps({"text": "a" * (LONGEST_TEXT + 1)}).encode(), {"Content_Type": kind}),
    ):
        assert asked(server, "POST", "/suggest", body, **headers)[0] == status, headers
    for status, path, headers in (
        (404, "/../pyproject.toml", {}),
        (404, "/suggest", {}),
        (403, "/", {"Host": f"attacker.example:{port}"}),
        (200, "/", {"Host": f"localhost:{port}"}),
    ):
        found, content, sent = asked(server, "GET", path, None, **headers)
        assert found == status
    assert b"http://" not in content
    assert "default-src 'none'" in sent["Content-Security-Policy"]


def test_what_cannot_be_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="reads each text from its beginning"):
        Typist("own", trained_model(architecture="tests.own_models:Gru"), "exact")
    assert main(["try", *["a"] * 3]) == 2
    assert "compares at most two" in capsys.readouterr().err
    assert main(["try", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    with KeyboardServer(0, []) as one, pytest.raises(UserError, match=r"--port .* cannot be used"):
        KeyboardServer(one.server_port, [])


@needs_chromium
def test_keys_of_a_browser(server: KeyboardServer, tmp_path: Path) -> None:
    texts = 'document.getElementById("text").textContent'
    words = '[...document.querySelectorAll(".strip:first-child button")].map(b => b.textContent)'
    with browser(tmp_path / "profile") as tab:
        tab.open(server.address, 390, 800)
        tab.wait(f"{words}.length === 3")
        tab.type("the kin")
        tab.wait(f'{words}.join() === "king,,"')
        tab.press("1")
        tab.wait(f"{texts} === 'the king ' && {words}.every(word => word)")
        assert tab.value(words) == suggested(server, "the king ")["models"][0]["words"]
        tab.press("Backspace")
        tab.wait(f"{texts} === 'the king'")
        tab.value("document.querySelector('[data-key=\"q\"]').click()")
        tab.wait(f"{texts} === 'the kingq'")
        for _ in range(9):
            tab.press("Backspace")
        tab.type("<b>")
        tab.wait(f"{texts} === '<b>' && document.querySelectorAll('main b').length === 0")
        assert tab.value('document.querySelector("td").textContent') == NAME
        assert tab.value("document.querySelectorAll('td i').length") == 0
        assert "of 3 suggestions agree" in tab.value("document.body.textContent")
        for width in (390, 1280):
            tab.open(server.address, width, 800)
            tab.wait(f"{words}.length === 3")
            assert tab.value("document.documentElement.scrollWidth <= innerWidth")
