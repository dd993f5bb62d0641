"""Policy: no dial in force ever leaves the caller's envelope."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat_server.contract.dials import DIAL_NAMES, DialName
from rheostat_server.control_request import ControlRequest
from rheostat_server.errors import NotPermitted, UnknownPreset
from rheostat_server.policy import DialRange, Envelope, Policy, resolve

fractions = st.floats(0, 1)


@st.composite
def ranges(draw: st.DrawFn) -> DialRange:
    low, default, high = sorted(draw(st.tuples(fractions, fractions, fractions)))
    return DialRange(low, high, default)


envelopes = st.builds(Envelope, safety=ranges(), helpfulness=ranges())
dial_names = st.sampled_from(DIAL_NAMES)
requests = st.builds(
    ControlRequest,
    dials=st.dictionaries(dial_names, fractions),
    preset=st.sampled_from([None, "strict", "balanced", "open"]),
)


@given(requests, envelopes)
def test_no_dial_in_force_leaves_the_envelope(asked: ControlRequest, envelope: Envelope) -> None:
    in_force = resolve(asked, Policy(envelope))
    for name, value in in_force.dials.as_dict().items():
        limits = envelope.ranges()[name]
        assert limits.minimum <= value <= limits.maximum
        wanted = in_force.requested.get(name, limits.default)
        assert (name in in_force.clamped) == (value != wanted)


@given(requests, envelopes)
def test_a_rejecting_envelope_refuses_exactly_what_a_clamping_one_clamps(
    asked: ControlRequest, envelope: Envelope
) -> None:
    clamped = resolve(asked, Policy(envelope)).clamped
    rejecting = Policy(Envelope(safety=envelope.safety, helpfulness=envelope.helpfulness, outside="reject"))
    if not clamped:
        assert resolve(asked, rejecting).clamped == ()
        return
    with pytest.raises(NotPermitted, match=clamped[0]) as refusal:
        resolve(asked, rejecting)
    assert refusal.value.param == f"control.{clamped[0]}"


def test_a_mode_outside_the_envelope_is_not_permitted() -> None:
    with pytest.raises(NotPermitted, match="'off'"):
        resolve(ControlRequest(mode="off"), Policy(Envelope(modes=("adapter",), default_mode="adapter")))


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownPreset, match="strict, balanced, open"):
        resolve(ControlRequest(preset="wild"), Policy())


@pytest.mark.parametrize("name", DIAL_NAMES)
def test_a_dial_left_out_takes_the_default(name: DialName) -> None:
    envelope = Envelope(safety=DialRange(default=0.3), helpfulness=DialRange(default=0.4))
    default = resolve(ControlRequest(), Policy(envelope)).dials.as_dict()[name]
    assert default == envelope.ranges()[name].default


@pytest.mark.parametrize("limits", [(0.5, 0.4, 0.5), (0.0, 0.5, 0.6), (-0.1, 1.0, 0.5), (0.0, float("nan"), 0.0)])
def test_a_range_that_makes_no_sense_is_refused(limits: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError):
        DialRange(*limits)
