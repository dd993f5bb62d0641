"""A tiny guard on a real vLLM server, held to the levels of the same guard in this process."""

from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rheostat_server.scorers import Dialogue, Scores
from rheostat_server.scorers.guard import build_guard
from rheostat_server.scorers.remote import build_remote
from rheostat_server.scorers.spec.guard import GuardSpec
from rheostat_server.scorers.spec.remote import RemoteGuardSpec
from tests.engines.vllm.server import VllmServer, running
from tests.scorers.tiny_guards import SHIELDGEMMA, build, tokenizer_of
from tools.processes import free_port

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="no build of vLLM is installed"),
]

GUIDELINES = ["No powder.", "Nothing hot, please, in any conversation."]
ASKED = [{"role": "user", "content": "Is vorn powder hot?"}]
DIALOGUES = [Dialogue(ASKED, answer) for answer in ("It is mild.", "Safe in a kitchen. <end>", "I will not tell you.")]


def sure(vocabulary: int) -> LlamaForCausalLM:
    """It always says yes or no, and which depends on what it reads: one channel, alike for every token, is a bias."""
    verdicts = tokenizer_of(SHIELDGEMMA).convert_tokens_to_ids(["Yes", "N"])  # its "No" is two tokens
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,  # vLLM's CPU kernels refuse narrower heads
            max_position_embeddings=512,
            initializer_range=0.2,
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 3.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        model.lm_head.weight[:, 0] = 0.0
        model.lm_head.weight[verdicts, 0] = 20.0
    return model


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("guard") / "guard", SHIELDGEMMA, sure)


@pytest.fixture(scope="module")
def server(guard: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[VllmServer]:
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "guard"]
    small = ["--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", "64M"]
    with running(
        ["vllm", "serve", guard, *address, *small],
        port=port,
        log=tmp_path_factory.mktemp("vllm") / "guard.log",
        path="/health",
    ) as server:
        yield server


async def scores(server: VllmServer, dialogues: list[Dialogue], **more: Any) -> list[Scores]:
    fields = {"kind": "remote", "api": "guard", "url": server.url, "model": "guard", "deadline": 60.0}
    remote = build_remote(RemoteGuardSpec.model_validate({**fields, "format": "shieldgemma", **more}))
    try:
        return await remote.score(dialogues)
    finally:
        await remote.close()


def own(guard: Path, dialogues: list[Dialogue], **more: Any) -> list[float | None]:
    fields = {"kind": "guard", "format": "shieldgemma", "model": str(guard)}
    return [one.safety for one in build_guard(GuardSpec.model_validate({**fields, **more})).scores(dialogues)]


@pytest.mark.parametrize("guidelines", [GUIDELINES[:1], GUIDELINES[1:], GUIDELINES])
async def test_a_served_guard_tells_the_levels_that_it_has_in_this_process(
    server: VllmServer, guard: Path, guidelines: list[str]
) -> None:
    found = await scores(server, DIALOGUES, guidelines=guidelines, least_mass=0.9)
    expected = own(guard, DIALOGUES, guidelines=guidelines, least_mass=0.9)
    assert [one.safety for one in found] == pytest.approx(expected, abs=1e-3)
    known = [level for level in expected if level is not None]
    assert max(known) - min(known) > 0.02


async def test_a_guard_of_another_form_could_not_judge(server: VllmServer) -> None:
    assert await scores(server, DIALOGUES[:1], guidelines=GUIDELINES, lead="Verdict:") == [Scores()]


async def test_a_conversation_that_is_too_long_is_not_judged(server: VllmServer) -> None:
    long = Dialogue(ASKED, "It is mild. " * 400)
    short, other = await scores(server, [DIALOGUES[0], long], guidelines=GUIDELINES)
    assert short.safety is not None
    assert other == Scores()
