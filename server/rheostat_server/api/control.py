"""`GET /v1/control`: what a caller may set. `POST /v1/control/plan`: what would run, nothing run."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rheostat_server import pipeline
from rheostat_server.adapters import Adapter
from rheostat_server.api.chat_body import read_chat_request
from rheostat_server.api.json_response import json_response
from rheostat_server.api.openapi import CHAT_BODY, CONTROL, PLAN
from rheostat_server.api.request_record import record_of
from rheostat_server.api.runtime import caller_of, caller_with_room, runtime_of
from rheostat_server.blending.store import Blend
from rheostat_server.contract.dials import DIAL_NAMES
from rheostat_server.modes.reranking import DRAWN_BY
from rheostat_server.plan import Means, Selection, permitted
from rheostat_server.policy import Envelope, Preset
from rheostat_server.receipt import plan_parts

router = APIRouter()


@router.get("/v1/control", response_model=None, responses=CONTROL)
async def show_control(request: Request) -> Response:
    """Dials with their envelope, modes, presets, and adapters with the range that was measured for each dial."""
    runtime, caller = runtime_of(request), await caller_of(request)
    envelope = caller.policy.envelope
    adapters = permitted(runtime.means.adapters.adapters, envelope)
    blends = permitted(runtime.means.blends.blends, envelope)
    there = {"adapter": bool(adapters), "blend": bool(blends)}
    return json_response(
        {
            "dials": _dials(envelope),
            "outside": envelope.outside,
            "modes": [mode for mode in envelope.modes if _can_run(mode, there, runtime.means.selection)],
            "default_mode": envelope.default_mode,
            "presets": {name: _preset(preset) for name, preset in caller.policy.permitted_presets.items()},
            "adapters": [_adapter(adapter, runtime.means) for adapter in adapters],
            **({"blends": [_blend(blend) for blend in blends]} if blends else {}),
            "prompt_version": runtime.means.wordings.version,
            **_reranking(runtime.means.selection, envelope),
        }
    )


@router.post("/v1/control/plan", response_model=None, responses=PLAN, openapi_extra=CHAT_BODY)
async def show_plan(request: Request) -> Response:
    """The plan for a chat body: the dials in force and the engine's request. It counts as a request of the caller's."""
    runtime, record, caller = runtime_of(request), record_of(request), await caller_with_room(request)
    async with runtime.admission.counted(caller) as quota:
        record.headers |= quota.headers()
        prepared = pipeline.prepare(await read_chat_request(request, runtime, caller), runtime)
    parts = plan_parts(prepared.in_force, prepared.plan)
    told = {**parts, "engine": runtime.engine.name, "engine_request": prepared.plan.body}
    return json_response(told, headers=record.headers)


def _can_run(mode: str, there: Mapping[str, bool], selection: Selection | None) -> bool:
    """Whether the server has what the mode needs, and lets the caller use it; `there` are the modes that need more."""
    if mode in DRAWN_BY and selection is None:
        return False
    return there.get(DRAWN_BY.get(mode, mode), True)


def _reranking(selection: Selection | None, envelope: Envelope) -> dict[str, Any]:
    if selection is None:
        return {}
    return {
        "reranking": {
            "scorers": list(selection.scorers),
            "candidates": {"default": selection.candidates, "max": envelope.max_candidates},
            "choose_after": selection.choose_after,
            "early_stop": selection.schedule.as_data(),
            "safety_floor": envelope.safety_floor,
        }
    }


def _dials(envelope: Envelope) -> dict[str, Any]:
    return {
        name: {
            "min": limits.minimum,
            "max": limits.maximum,
            "default": limits.default,
            **({"locked": True} if limits.locked else {}),
        }
        for name, limits in envelope.ranges().items()
    }


def _preset(preset: Preset) -> dict[str, Any]:
    shown: dict[str, Any] = {str(name): value for name, value in preset.dials.items()}
    return {**shown, "mode": preset.mode} if preset.mode else shown


def _adapter(adapter: Adapter, means: Means) -> dict[str, Any]:
    dials = adapter.manifest.dials
    return {
        "id": adapter.id,
        "name": adapter.name,
        "base_model": adapter.manifest.base_model.name,
        "levels": {name: dials[name].levels for name in DIAL_NAMES},
        "attainable": {name: dials[name].attainable for name in DIAL_NAMES if dials[name].attainable is not None},
        "calibrated": {
            mode: {name: curve.attainable for name, curve in curves.items()}
            for mode, curves in means.curves(adapter).items()
        },
    }


def _blend(blend: Blend) -> dict[str, Any]:
    manifest = blend.manifest
    return {
        "id": blend.id,
        "name": blend.name,
        "base_model": manifest.base_model.name,
        "components": [component.name for component in manifest.components],
        "dials": list(DIAL_NAMES) if manifest.control_text else manifest.dials,
        "levels": manifest.levels,
    }
