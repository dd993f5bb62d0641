"""ControlPlan: dials compiled into one engine request. Pure, so a dry run is just the plan."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal, NoReturn, TypeVar

from rheostat_server.adapters import Adapter, AdapterStore
from rheostat_server.blending.store import Blend, BlendPoint, BlendStore
from rheostat_server.chat_request import ChatRequest
from rheostat_server.contract.calibration import Calibration, calibrated
from rheostat_server.contract.control_text import ControlText
from rheostat_server.contract.dials import Dials
from rheostat_server.contract.neutral import Neutraliser
from rheostat_server.contract.wordings import Wordings
from rheostat_server.control_request import AT_THE_END
from rheostat_server.errors import InvalidField, UnknownAdapter
from rheostat_server.modes.reranking import DRAWN_BY, PLAIN, RerankPlan, Schedule, conversation
from rheostat_server.plan_checks import check_fields
from rheostat_server.policy import Envelope, InForce, not_permitted


@dataclass(frozen=True, slots=True)
class ControlPlan:
    """What will be run: the mode, the engine's request body, and how the dials entered it.

    `effective` are the dials that the body obeys; None when the mode obeys none. `control_values` are what a
    calibration or a blend's grid made of them; None where neither was used. `blend` is what the engine must have
    loaded, with its address as `adapter`; None where no adapters are blended. `rerank` says how one of several
    candidates is chosen; None where the engine's answer is the answer.
    """

    mode: str
    body: Mapping[str, Any]
    effective: Dials | None = None
    adapter: str | None = None
    control_text: str | None = None
    prompt_version: str | None = None
    control_values: Dials | None = None
    neutralised: int = 0
    blend: BlendPoint | None = None
    rerank: RerankPlan | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """What there is to rerank with: the scorers by their addresses, and how they are used where a request says nothing.

    `candidates` is N; `schedule` when partial answers are judged; `choose_after` the tokens after which a stream's
    candidate is chosen. With `calibrate` candidates are drawn by the calibration, and not at the nearest levels.
    """

    scorers: tuple[str, ...]
    candidates: int = 8
    least: int = 1
    schedule: Schedule = PLAIN
    choose_after: int | Literal["end"] = 32
    calibrate: bool = False


@dataclass(frozen=True, slots=True)
class Means:
    """What there is to control with: adapters of the base model, wordings, blends, and scorers to rerank by, if any.

    Dials are read through the calibrations of the adapters' manifests unless `calibrate` is false, so that they are the
    mean of many answers. With `nearest` they are the nearest values that the adapter was trained at, for candidates to
    choose among: a mean may be made of answers far above and far below, and a choice needs some that are near.
    """

    adapters: AdapterStore
    wordings: Wordings
    calibrate: bool = True
    nearest: bool = False
    selection: Selection | None = None
    blends: BlendStore = field(default_factory=BlendStore)

    def control_values(
        self, mode: str, in_force: InForce, body: Mapping[str, Any], adapter: Adapter | None = None
    ) -> Dials | None:
        """What is made of a request's dials for a mode; None where they are taken as they are.

        The prompt mode's calibration is that of any adapter of the base model which was measured with these wordings.
        """
        if self.nearest:
            return adapter.manifest.nearest_levels(in_force.dials, within=in_force.limits) if adapter else None
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


PRINTED: Final = ("tools", "functions", "documents", "chat_template_kwargs")
"""What chat templates print of a body beside its messages."""

Mode = Callable[[ChatRequest, InForce, Means], ControlPlan]
Used = TypeVar("Used", Adapter, Blend)


def make_plan(chat: ChatRequest, in_force: InForce, means: Means) -> ControlPlan:
    """Compiles a request.

    Raises:
        UnknownAdapter: the request names an adapter that does not exist.
        InvalidField: a field that the mode cannot honour, or no user message to carry control text.
    """
    mode = in_force.mode
    if mode == "auto":
        mode = _chosen_mode(chat, in_force, means)
    check_fields(chat, mode)
    return MODES[mode](chat, in_force, means)


def plan_off(chat: ChatRequest, in_force: InForce, means: Means) -> ControlPlan:
    """The request as it came; the dials are not in force."""
    return ControlPlan(mode="off", body={**chat.body, "model": chat.model})


def plan_prompt(chat: ChatRequest, in_force: InForce, means: Means) -> ControlPlan:
    """Worded levels in the system message."""
    control = means.control_values("prompt", in_force, chat.body)
    written = control or means.wordings.writable(in_force.dials, in_force.limits)
    try:
        messages = means.wordings.apply(chat.body["messages"], written)
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
    adapter = _adapter(chat, in_force, means.adapters)
    control = means.control_values("adapter", in_force, chat.body, adapter)
    written = control or adapter.control_text.writable(in_force.dials, in_force.limits)
    body, places = _with_text(chat.body, adapter.control_text, written)
    return ControlPlan(
        mode="adapter",
        body={**body, "model": adapter.id},
        neutralised=places,
        effective=in_force.dials,
        adapter=adapter.id,
        control_text=adapter.control_text.render(written),
        control_values=control,
    )


def plan_blend(chat: ChatRequest, in_force: InForce, means: Means) -> ControlPlan:
    """The adapters of a blend, summed by the weights of the grid point nearest to the dials; the base model if none is
    left.

    A blend that has a control text is asked with that of the grid point too.
    """
    blend = _blend(chat, in_force, means.blends)
    point = blend.at(in_force.dials, in_force.limits)
    body, places, said = chat.body, 0, None
    if text := blend.control_text:
        written = text.writable(point.dials, in_force.limits)
        (body, places), said = _with_text(chat.body, text, written), text.render(written)
    return ControlPlan(
        mode="blend",
        body={**body, "model": point.address if point.parts else chat.model},
        neutralised=places,
        effective=in_force.dials,
        adapter=point.address,
        control_text=said,
        control_values=point.dials,
        blend=point,
    )


def _with_text(body: Mapping[str, Any], text: ControlText, dials: Dials) -> tuple[dict[str, Any], int]:
    """The body with a control text of the dials, and how many places held some of the caller's."""
    try:
        neutral, places = _neutral(body, text)
        return {**neutral, "messages": text.apply(neutral["messages"], dials)}, places
    except ValueError as exc:
        raise InvalidField(str(exc), param="messages") from exc


def _neutral(body: Mapping[str, Any], text: ControlText) -> tuple[dict[str, Any], int]:
    """The body with no such control text in what its prompt may print, and how many places held some."""
    neutraliser = Neutraliser((text,))
    found = {name: neutraliser.value(body[name]) for name in PRINTED if body.get(name)}
    messages = neutraliser.messages(body["messages"])
    others = {name: value for name, (value, _) in found.items()}
    places = messages.places + sum(count for _, count in found.values())
    return {**body, **others, "messages": messages.messages}, places


def plan_rerank(chat: ChatRequest, in_force: InForce, means: Means, *, mode: str) -> ControlPlan:
    """Several candidates, drawn in another mode, and a choice among them by the scorers."""
    if means.selection is None:
        raise InvalidField(
            f"mode is {mode!r}, and the server has no scorers; start it with --scorers", param="control.mode"
        )
    drawn = MODES[DRAWN_BY[mode]](chat, in_force, replace(means, nearest=not means.selection.calibrate))
    body = {name: value for name, value in drawn.body.items() if name != "n"}
    return replace(
        drawn, mode=mode, body=body, effective=in_force.dials, rerank=_rerank_plan(chat, in_force, means.selection)
    )


def _rerank_plan(chat: ChatRequest, in_force: InForce, selection: Selection) -> RerankPlan:
    wanted = in_force.candidates or min(selection.candidates, in_force.envelope.max_candidates)
    return RerankPlan(
        messages=conversation(chat.body["messages"]),
        target=in_force.dials,
        scorers=selection.scorers,
        wanted=wanted,
        least=min(selection.least, wanted),
        alike=chat.body.get("temperature") == 0,
        schedule=_schedule(chat, in_force, selection),
        floor=in_force.envelope.safety_floor,
        refusal=in_force.envelope.refusal,
    )


def _schedule(chat: ChatRequest, in_force: InForce, selection: Selection) -> Schedule:
    """The checks of a request; that of a stream's choice is the last one.

    A floor is a promise of whole answers, so under one a stream's candidate is chosen when it is whole.
    """
    asked = chat.control.choose_after
    if asked not in (None, AT_THE_END) and in_force.envelope.safety_floor > 0:
        raise InvalidField(
            f"choose_after is {asked}; whole answers alone can be held to this caller's safety floor, so it must be "
            f"{AT_THE_END!r} or left out",
            param="control.choose_after",
        )
    if chat.control.early_stop and not selection.schedule.checks:
        raise InvalidField(
            "early_stop is true, and the server's scorers have no schedule for it; leave it out, or let the operator "
            "give early_stop in the scorers' file",
            param="control.early_stop",
        )
    schedule = PLAIN if chat.control.early_stop is False else selection.schedule
    after = selection.choose_after if asked is None else asked
    if not chat.wants_stream or in_force.envelope.safety_floor > 0 or not isinstance(after, int):
        return schedule
    return schedule.then_one(after)


MODES: Final[Mapping[str, Mode]] = {
    "off": plan_off,
    "prompt": plan_prompt,
    "adapter": plan_adapter,
    "blend": plan_blend,
    **{mode: partial(plan_rerank, mode=mode) for mode in DRAWN_BY},
}


def _chosen_mode(chat: ChatRequest, in_force: InForce, means: Means) -> str:
    """What `auto` stands for: the first of adapter, blend and prompting that there is and that the envelope holds.

    A request that names an adapter or a blend has that one.

    Raises:
        UnknownAdapter: it names what is neither.
    """
    named, envelope = chat.control.adapter, in_force.envelope
    if named is not None:
        if not (means.adapters.has(named) or means.blends.has(named)):
            raise UnknownAdapter(named, [*means.adapters.ids, *means.blends.ids])
        there = ["blend" if means.blends.has(named) else "adapter", "prompt"]
    else:
        adapters = permitted(means.adapters.adapters, envelope)
        blends = permitted(means.blends.blends, envelope)
        there = [*(["adapter"] if adapters else []), *(["blend"] if blends else []), "prompt"]
    held = [mode for mode in ("adapter", "blend", "prompt") if mode in envelope.modes]
    return next((mode for mode in there if mode in held), held[0] if held else there[0])


def permitted(those: Sequence[Used], envelope: Envelope) -> list[Used]:
    """The adapters or blends that a caller may use, by name or by id; the first one is its default."""
    return [one for one in those if envelope.may("adapters", one.name) or envelope.may("adapters", one.id)]


def _adapter(chat: ChatRequest, in_force: InForce, store: AdapterStore) -> Adapter:
    named = None if chat.control.adapter is None else store.find(chat.control.adapter)
    return _one_of(named, store.adapters, in_force.envelope) or _none_served(
        "adapter", chat, "use the mode 'prompt', or start the server with --adapter"
    )


def _blend(chat: ChatRequest, in_force: InForce, store: BlendStore) -> Blend:
    named = None if chat.control.adapter is None else store.find(chat.control.adapter)
    return _one_of(named, store.blends, in_force.envelope) or _none_served(
        "blend", chat, "use another mode, or start the server with --blend"
    )


def _none_served(kind: str, chat: ChatRequest, right: str) -> NoReturn:
    raise InvalidField(f"mode is {kind!r}, and no {kind} is served for {chat.model!r}; {right}", param="control.mode")


def _one_of(named: Used | None, those: Sequence[Used], envelope: Envelope) -> Used | None:
    """The one that is named, or the caller's default; None where there is none.

    Raises:
        NotPermitted: the caller may not use the one that is named.
    """
    allowed = permitted(those, envelope)
    if named is None:
        return allowed[0] if allowed else None
    if named not in allowed:
        raise not_permitted("adapter", named.name, envelope, envelope.adapters, param="control.adapter")
    return named
