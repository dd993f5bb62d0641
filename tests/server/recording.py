"""An engine that answers every request alike and keeps what it was asked."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from rheostat_server.engines import DONE, Completion, EngineRequest, Part, Streams
from rheostat_server.engines.separate import separate_streams
from rheostat_server.sse import event

DIGEST = "sha256:" + "0123456789abcdef" * 4


@dataclass
class RecordingEngine:
    """Answers every request alike, and keeps what it was asked."""

    name: str = "recording"
    takes_n: bool = True
    counts_as_it_goes: bool = False
    urgent_first: bool = False
    blend_room: int = 25
    asked: list[EngineRequest] = field(default_factory=list)
    blends: dict[str, Sequence[Part]] = field(default_factory=dict)

    def models(self) -> Sequence[str]:
        return ["demo"]

    async def check_ready(self) -> None:
        return

    async def complete(self, request: EngineRequest) -> Completion:
        self.asked.append(request)
        message = {"role": "assistant", "content": "Yes."}
        return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": request.body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}  # fmt: skip

    async def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        self.asked.append(request)
        for text in ("Ye", "s."):
            yield event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "demo",
                         "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})  # fmt: skip
        yield DONE

    def fan_out(self, request: EngineRequest, n: int) -> AbstractAsyncContextManager[Streams]:
        return separate_streams(self, request, n, {})

    async def load_blend(self, address: str, parts: Sequence[Part]) -> None:
        self.blends[address] = parts

    async def unload_blend(self, address: str) -> None:
        del self.blends[address]

    async def occupancy(self) -> None:
        return

    async def close(self) -> None:
        return
