"""What a living server says of itself."""

from tests.engines.suite.served import Served


def test_a_living_server_is_healthy_and_ready(served: Served) -> None:
    with served.http() as http:
        assert http.get("/health").status_code == 200
        ready = http.get("/ready")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "engine": served.engine, "models": [served.model]}


def test_the_base_model_is_listed_and_adapters_are_not(served: Served) -> None:
    names = [model.id for model in served.openai().models.list()]
    assert served.model in names
    assert served.warm not in names


def test_control_lists_the_adapters(served: Served) -> None:
    with served.http() as http:
        control = http.get("/v1/control").json()
    assert [adapter["id"] for adapter in control["adapters"]] == [served.warm, served.cold]
