"""Without our gate nothing is served: vLLM itself would only log that a plugin failed, and go on."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import Message
from vllm.plugins.endpoint_plugins.interface import attach_endpoint_plugins

from rheostat_server.engines.vllm.gate import close_all_but
from rheostat_server.engines.vllm.guard import REASON, GateRequired
from rheostat_server.engines.vllm.plugin import RheostatPlugin
from tests.engines.vllm.server import SMALL, started
from tools.processes import free_port

BREAK_THE_PLUGIN = "import sys; sys.modules['rheostat_server.engines.vllm.plugin'] = None\n"


def app_of_vllm() -> FastAPI:
    app = FastAPI()

    @app.post("/v1/completions")
    async def complete() -> str:
        return "around the pipeline"

    return app


async def test_a_server_without_the_gate_does_not_start() -> None:
    app = app_of_vllm()
    app.add_middleware(GateRequired)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "lifespan"}, receive, send)
    assert sent == [{"type": "lifespan.startup.failed", "message": REASON}]


def test_a_server_without_the_gate_that_runs_all_the_same_answers_503() -> None:
    app = app_of_vllm()
    app.add_middleware(GateRequired)
    answer = TestClient(app).post("/v1/completions")
    assert answer.status_code == 503
    assert "did not load" in answer.json()["error"]["message"]


def test_a_server_with_the_gate_is_let_through_to_it() -> None:
    app = app_of_vllm()
    close_all_but([], app)
    app.add_middleware(GateRequired)
    with TestClient(app) as client:
        assert client.post("/v1/completions").status_code == 404
        assert client.get("/docs").status_code == 200


def test_a_route_added_after_the_gate_is_closed() -> None:
    app = FastAPI()
    close_all_but([], app)
    app.add_api_route("/invocations", lambda: "around the pipeline", methods=["POST"])
    app.mount("/mounted", app_of_vllm())
    client = TestClient(app)
    assert client.post("/invocations").status_code == 404
    assert client.post("/mounted/v1/completions").status_code == 404


def test_another_plugin_cannot_take_the_place_of_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM lets a plugin replace any route that was there before, ours included."""

    class Other:
        def attach_router(self, app: FastAPI) -> None:
            for path, methods in (("/v1/chat/completions", ["POST"]), ("/version", ["GET"]), ("/load", ["GET"])):
                app.add_api_route(path, lambda: "around the pipeline", methods=methods)

    for plugins in ([RheostatPlugin(), Other()], [Other(), RheostatPlugin()]):
        monkeypatch.setattr("vllm.plugins.load_endpoint_plugins", lambda tasks, plugins=plugins: plugins)
        app = FastAPI()
        app.add_api_route("/version", lambda: "vLLM's own", methods=["GET"])
        app.add_api_route("/load", lambda: "vLLM's own", methods=["GET"])
        attach_endpoint_plugins(app, ("generate",))
        client = TestClient(app)
        answers = [client.post("/v1/chat/completions"), client.get("/version"), client.get("/load")]
        assert not [answer.text for answer in answers if "around" in answer.text]


def test_a_prefix_of_a_proxy_is_judged_as_the_router_does() -> None:
    app = FastAPI(root_path="/llm")
    app.add_api_route("/v1/completions", lambda: "around the pipeline", methods=["GET"])
    app.add_api_route("/version", lambda: "1", methods=["GET"])
    close_all_but([], app)
    client = TestClient(app)
    for path in ("/llm/version", "/version"):
        assert client.get(path).status_code == 200
    for path in ("/llm/v1/completions", "/v1/completions", "/version/llm/v1/completions", "/llm/llm/version"):
        assert client.get(path).status_code == 404


@pytest.mark.slow
def test_rheostat_serve_does_not_start_in_vllm_when_its_plugin_is_broken(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BREAK_THE_PLUGIN)
    port = free_port()
    command: list[str | Path] = ["rheostat", "serve", tiny_model, "--engine", "vllm", "--port", str(port), "--", *SMALL]
    with started(command, port=port, log=tmp_path / "log", environment={"PYTHONPATH": str(tmp_path)}) as server:
        assert server.process.wait(240) != 0
        assert "did not load the endpoint plugin" in server.log.read_text()
