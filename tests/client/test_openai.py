"""`rheostat.openai`: an openai client whose every request has dials."""

import subprocess
import sys

import pytest

import rheostat
from rheostat import Receipt
from rheostat_server.engines.fake import FakeEngine

openai = pytest.importorskip("openai", reason="the package openai is not installed")
HELLO = [{"role": "user", "content": "Hello"}]


def test_every_request_has_the_dials_and_the_client_given_has_none(url: str) -> None:
    plain = openai.OpenAI(base_url=f"{url}/v1", api_key="none", default_headers={"X-Request-ID": "mine"})
    with rheostat.openai(plain, safety=0.9, helpfulness=0.00001, mode="prompt") as dialled:
        whole = dialled.chat.completions.with_raw_response.create(model="demo", messages=HELLO)
        receipt = Receipt.of(whole.parse().control)
        *_, last = dialled.chat.completions.create(model="demo", messages=HELLO, stream=True)
        bare = plain.chat.completions.create(model="demo", messages=HELLO)
    assert (receipt.mode, receipt.requested.as_dict()) == ("prompt", {"safety": 0.9, "helpfulness": 0.00001})
    assert whole.headers["X-Request-ID"] == "mine"
    assert Receipt.of(last.control).requested == receipt.requested
    assert Receipt.of(bare.control).requested.as_dict() == {}


def test_the_receipt_of_a_stream_is_on_its_last_chunk_and_the_helpers_final_completion_has_none(url: str) -> None:
    with (
        rheostat.openai(openai.OpenAI(base_url=f"{url}/v1", api_key="none"), safety=0.9, mode="prompt") as dialled,
        dialled.chat.completions.stream(model="demo", messages=HELLO) as stream,
    ):
        chunks = [event.chunk for event in stream if event.type == "chunk"]
        final = stream.get_final_completion()
    assert Receipt.of(chunks[-1].control).requested.safety == 0.9
    assert [chunk for chunk in chunks[:-1] if "control" in chunk.to_dict()] == []
    assert (bool(final.choices[0].message.content), "control" in final.to_dict()) == (True, False)


def test_a_requests_own_dials_go_before_them(url: str) -> None:
    with rheostat.openai(openai.OpenAI(base_url=f"{url}/v1", api_key="none"), safety=0.9, mode="prompt") as dialled:
        own = {"control": {"safety": 0.1, "mode": "rerank", "candidates": 2}}
        answer = dialled.chat.completions.create(model="demo", messages=HELLO, extra_body=own)
    receipt = Receipt.of(answer.control)
    assert (receipt.mode, receipt.requested.safety) == ("rerank", 0.1)
    assert receipt.candidates
    assert receipt.candidates.wanted == 2


async def test_an_asynchronous_client_too(url: str, engine: FakeEngine) -> None:
    async with rheostat.openai(openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none"), safety=1) as dialled:
        answer = await dialled.chat.completions.create(model="demo", messages=HELLO)
    assert Receipt.of(answer.control).requested.safety == 1
    assert len(engine.asked) == 1


def test_a_wrong_level_is_refused_at_once() -> None:
    client = openai.OpenAI(base_url="http://server/v1", api_key="none")
    with pytest.raises(ValueError, match="safety is 2"):
        rheostat.openai(client, safety=2)
    client.close()


def test_the_client_imports_neither_openai_nor_the_packages_of_the_command_line() -> None:
    code = "import sys, rheostat; print({name.partition('.')[0] for name in sys.modules} & set(sys.argv[1:]))"
    heavy = ["openai", "typer", "matplotlib", "pydantic", "fastapi", "rheostat_server", "rheostat_training"]
    found = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
