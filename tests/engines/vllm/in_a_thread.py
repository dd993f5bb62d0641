"""vLLM's app served by another than vLLM, as Ray's replicas serve it: in a thread, by its ASGI alone. Told as JSON.

python -m tests.engines.vllm.in_a_thread, with the settings in the environment and vLLM's flags as arguments
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from threading import Thread
from typing import Any, Final

import httpx

from rheostat_server.ray_serve.apps import APPS
from rheostat_server.settings import Settings

ASKED: Final[dict[str, Any]] = {
    "model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "control": {"mode": "off"},
}  # fmt: skip


async def answers(flags: Sequence[str]) -> dict[str, Any]:
    async with (
        APPS["vllm"](Settings(), flags) as app,
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as http,
    ):
        chat = await http.post("/v1/chat/completions", json=ASKED)
        bare = await http.post("/v1/completions", json={"model": "tiny", "prompt": "hello"})
        return {"chat": chat.status_code, "control": chat.json()["control"], "bare": bare.status_code}


def main(flags: Sequence[str]) -> None:
    found: list[dict[str, Any]] = []
    thread = Thread(target=lambda: found.append(asyncio.run(answers(flags))))
    thread.start()
    thread.join()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
