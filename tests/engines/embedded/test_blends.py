"""Blends on the embedded engine: the adapters are there, and a blend is a row of weights."""

import asyncio
from collections.abc import Generator
from pathlib import Path

import pytest

from rheostat_server.blending.store import Blend, BlendPoint, load_blend
from rheostat_server.contract.dials import Dials
from rheostat_server.engines import Part
from rheostat_server.engines.embedded import EmbeddedEngine
from rheostat_server.errors import EngineFailed, UnknownModel
from tests.blends import TinyBlend
from tests.engines.embedded.asking import SHORT, Reference, request, text_of
from tests.tiny import TinyAdapter
from tools.reference_merge import merged


@pytest.fixture(scope="module")
def blend(tiny_blend: TinyBlend) -> Blend:
    return load_blend(tiny_blend.folder, base_digest=None)


@pytest.fixture(scope="module")
def blending(tiny_model: Path, tiny_adapters: list[TinyAdapter], blend: Blend) -> Generator[EmbeddedEngine, None, None]:
    """An engine with an adapter of its own, and the components of a blend."""
    warm = tiny_adapters[0]
    engine = EmbeddedEngine.load(
        tiny_model, served_name="tiny", adapters={warm.id: warm.folder}, components=blend.folders(), threads=1
    )
    yield engine
    asyncio.run(engine.close())


def at(blend: Blend, safety: float, helpfulness: float) -> BlendPoint:
    return blend.at(Dials(safety=safety, helpfulness=helpfulness), {})


async def test_every_point_equals_the_reference_merge(blending: EmbeddedEngine, blend: Blend, tiny_model: Path) -> None:
    tokenizer = Reference.load(tiny_model).tokenizer
    told = set()
    for point in blend.points():
        reference = Reference(merged(tiny_model, point.parts), tokenizer)
        await blending.load_blend(point.address, point.parts)
        answer = await blending.complete(
            request(model=point.address, temperature=0, max_tokens=8, logprobs=True, top_logprobs=20)
        )
        choice = answer["choices"][0]
        assert choice["message"]["content"] == reference.answer(SHORT, tokens=8)
        scores = reference.log_probabilities(SHORT, reference.generate(SHORT, tokens=8))
        for row, one in zip(scores, choice["logprobs"]["content"], strict=True):
            best = row.topk(len(one["top_logprobs"])).values.tolist()
            assert [each["logprob"] for each in one["top_logprobs"]] == pytest.approx(best, abs=1e-4)
        told.add(choice["message"]["content"])
    assert len(told) > 5


async def test_points_adapters_and_the_base_share_a_batch(
    blending: EmbeddedEngine, blend: Blend, tiny_adapters: list[TinyAdapter]
) -> None:
    points = [at(blend, safety, 1) for safety in (0.25, 0.5, 1)]
    for point in points:
        await blending.load_blend(point.address, point.parts)
    names = ["tiny", tiny_adapters[0].id, *(point.address for point in points)]
    alone = [await text_of(blending, model=name, temperature=0, max_tokens=32) for name in names]
    together = await asyncio.gather(*(text_of(blending, model=name, temperature=0, max_tokens=32) for name in names))
    assert together == alone
    assert len(set(alone)) == len(names)


async def test_a_blend_that_is_unloaded_is_unknown_and_its_components_always_are(
    blending: EmbeddedEngine, blend: Blend
) -> None:
    point = at(blend, 1, 1)
    await blending.load_blend(point.address, point.parts)
    await blending.unload_blend(point.address)
    await blending.unload_blend(point.address)
    for name in (point.address, *blend.folders()):
        with pytest.raises(UnknownModel):
            await blending.complete(request(model=name))


async def test_running_answers_keep_the_blend_that_they_began_with(blending: EmbeddedEngine, blend: Blend) -> None:
    point = at(blend, 1, 1)
    await blending.load_blend(point.address, point.parts)
    alone = await text_of(blending, model=point.address, temperature=0, max_tokens=40)
    running = asyncio.create_task(text_of(blending, model=point.address, temperature=0, max_tokens=40))
    await asyncio.sleep(0.01)
    await blending.unload_blend(point.address)
    await blending.load_blend(point.address, [Part(point.parts[0].id, point.parts[0].folder, -1.0)])
    assert await running == alone


async def test_an_adapter_that_the_engine_was_started_without_is_not_blended(blending: EmbeddedEngine) -> None:
    with pytest.raises(EngineFailed, match="started without strange/other@1"):
        await blending.load_blend("strange@1", [Part("strange/other@1", Path("other"), 1.0)])
    with pytest.raises(UnknownModel):
        await blending.complete(request(model="strange@1"))
