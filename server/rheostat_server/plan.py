"""ControlPlan: dials compiled into one engine request. Pure, so a dry run is just the plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rheostat_server.adapters import Adapter, AdapterStore
from rheostat_server.chat_request import ChatRequest
from rheostat_server.contract.calibration import Calibration, calibrated
from rheostat_server.contract.dials import Dials
from rheostat_server.contract.wordings import Wordings
from rheostat_server.errors import InvalidField
from rheostat_server.policy import InForce


@dataclass(frozen=True, slots=True)
class ControlPlan:
    """What will be run: the mode, the engine's request body, and how the dials entered it.

    `effective` are the dials that the body obeys; None when the mode obeys none. `control_values` are what a
    calibration made of them; None where none was used.
    """

    mode: str
    body: Mapping[str, Any]
    effective: Dials | None = None
    adapter: str | None = None
    control_text: str | None = None
    prompt_version: str | None = None
    control_values: Dials | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """What there is to control with: adapters of the base model, and wordings.

    Dials are read through the calibrations of the adapters' manifests unless `calibrate` is false.
    """

    adapters: AdapterStore
    wordings: Wordings
    calibrate: bool = True

    def control_values(
        self, mode: str, in_force: InForce, body: Mapping[str, Any], adapter: Adapter | None = None
    ) -> Dials | None:
        """What the calibration of a mode makes of a request's dials; None where there is none.

        The prompt mode's is that of any adapter of the base model which was measured with these wordings.
        """
        for known in (adapter,) if adapter else self.adapters.adapters:
            if curves := self.curves(known).get(mode):
                return calibrated(in_force.dials, curves, body["messages"], body.get("seed"), within=in_force.limits)
        return None

    def curves(self, adapter: Adapter) -> Calibration:
        """The calibrations of an adapter's manifest that are in use, by mode."""
        if not self.calibrate:
            return {}
        return {
            mode: curves
            for mode, curves in (adapter.manifest.calibration or {}).items()
            if curves and all(curve.prompt_version in (None, self.wordings.version) for curve in curves.values())
        }


CUTS_CONTROL_OUT: Final = (
    "truncate_prompt_tokens", "truncation_side", "chat_template",
    "chat_template_kwargs.chat_template", "chat_template_kwargs.max_length", "chat_template_kwargs.truncation",
    "kv_transfer_params.prompt_token_ids",
)  # fmt: skip
"""Fields of engines that can take control text or instruction out of the prompt again, or stand in its place."""

Mode = Callable[[ChatRequest, InForce, Means], ControlPlan]


def make_plan(chat: ChatRequest, in_force: InForce, means: Means) -> ControlPlan:
    """Compiles a request.

    Raises:
        UnknownAdapter: the request names an adapter that does not exist.
        InvalidField: a field that the mode cannot honour, or no user message to carry control text.
    """
    mode = in_force.mode
    if mode == "auto":
        mode = "adapter" if chat.control.adapter or means.adapters.default() else "prompt"
    _check_fields(chat, mode)
    return MODES[mode](chat, in_force, means)


def plan_off(chat: ChatRequest, in_force: InForce, means: Means) -> ControlPlan:
    """The request as it came; the dials are not in force."""
    return ControlPlan(mode="off", body={**chat.body, "model": chat.model})


def plan_prompt(chat: ChatRequest, in_force: InForce, means: Means) -> ControlPlan:
    """Worded levels in the system message."""
    control = means.control_values("prompt", in_force, chat.body)
    try:
        messages = means.wordings.apply(chat.body["messages"], control or in_force.dials)
    except ValueError as exc:
        raise InvalidField(str(exc), param="messages") from exc
    return ControlPlan(
        mode="prompt",
        body={**chat.body, "model": chat.model, "messages": messages},
        effective=in_force.dials,
        prompt_version=means.wordings.version,
        control_values=control,
    )


def plan_adapter(chat: ChatRequest, in_force: InForce, means: Means) -> ControlPlan:
    """The adapter's control text after the last user message, answered by the adapter."""
    adapter = _adapter(chat, means.adapters)
    control = means.control_values("adapter", in_force, chat.body, adapter)
    written = control or in_force.dials
    try:
        messages = adapter.control_text.apply(chat.body["messages"], written)
    except ValueError as exc:
        raise InvalidField(str(exc), param="messages") from exc
    return ControlPlan(
        mode="adapter",
        body={**chat.body, "model": adapter.id, "messages": messages},
        effective=in_force.dials,
        adapter=adapter.id,
        control_text=adapter.control_text.render(written),
        control_values=control,
    )


MODES: Final[Mapping[str, Mode]] = {"off": plan_off, "prompt": plan_prompt, "adapter": plan_adapter}


def _adapter(chat: ChatRequest, store: AdapterStore) -> Adapter:
    if chat.control.adapter is not None:
        return store.find(chat.control.adapter)
    default = store.default()
    if default is None:
        raise InvalidField(
            f"mode is 'adapter', and no adapter is served for {chat.model!r}; use the mode 'prompt', or start the "
            "server with --adapter",
            param="control.mode",
        )
    return default


def _check_fields(chat: ChatRequest, mode: str) -> None:
    if chat.control.adapter is not None and mode != "adapter":
        raise InvalidField(
            f"adapter is {chat.control.adapter!r} and the mode is {mode!r}; an adapter goes with the modes auto and "
            "adapter",
            param="control.adapter",
        )
    for name in CUTS_CONTROL_OUT:
        if mode != "off" and _at(chat.body, name) is not None:
            raise InvalidField(
                f"{name} is given and the mode is {mode!r}, which it could undo; leave it out", param=name
            )
    if chat.control.candidates is not None:
        raise InvalidField(
            f"candidates is {chat.control.candidates} and the mode is {mode!r}, which answers with one; leave it out",
            param="control.candidates",
        )


def _at(body: Mapping[str, Any], path: str) -> object:
    """The value of `field` or of `field.inner`."""
    name, _, inner = path.partition(".")
    value = body.get(name)
    if not inner:
        return value
    return value.get(inner) if isinstance(value, dict) else None
