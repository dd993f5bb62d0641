"""Control text: the same rendering in training and in serving."""

import copy
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat_server.contract.control_text import ControlText, NoUserMessage
from rheostat_server.contract.dials import Dials, Limits, nearest_step
from rheostat_server.contract.wordings import default_wordings, with_instruction

dials = st.builds(Dials, safety=st.floats(0, 1), helpfulness=st.floats(0, 1))


def test_the_papers_form_is_the_default() -> None:
    assert ControlText().render(Dials(safety=0.9, helpfulness=0.6)) == "[helpful=0.60][harmless=0.90]"


@given(dials)
def test_every_setting_has_the_same_width(setting: Dials) -> None:
    assert len(ControlText().render(setting)) == len("[helpful=0.00][harmless=0.00]")


def test_it_follows_the_last_user_message_and_the_last_message_and_changes_nothing_else() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": "Three"},
        {"role": "tool", "content": "Four"},
    ]
    before = copy.deepcopy(messages)
    applied = ControlText().apply(messages, Dials(safety=0, helpfulness=1))
    assert applied[2]["content"] == "Three [helpful=1.00][harmless=0.00]"
    assert applied[3] == {"role": "tool", "content": "Four [helpful=1.00][harmless=0.00]"}
    assert applied[:2] == before[:2]
    assert messages == before
    messages[3] = {"role": "assistant", "content": None, "tool_calls": []}
    assert ControlText().apply(messages, Dials(0, 1))[3]["content"] == "[helpful=1.00][harmless=0.00]"
    assert ControlText().apply(messages[:3], Dials(0, 1))[2] == applied[2]


def test_a_conversation_without_a_user_cannot_carry_it() -> None:
    with pytest.raises(NoUserMessage, match="'user'"):
        ControlText().apply([{"role": "system", "content": "x"}], Dials(safety=0, helpfulness=0))


@pytest.mark.parametrize(
    "template",
    [
        "",
        "[helpful={helpfulness:.2f}]",
        "{helpfulness:.2f}{safety:.2f}{mood:.2f}",
        "{helpfulness:.2f}{safety:9999999999.2f}",
        "{helpfulness:.2f}{safety.__class__}",
        "{helpfulness:.2f}{safety}",
        "{helpfulness:.2f}{safety:.2f}{",
        "{{helpfulness:.2f}}{safety:.2f}",
    ],
)
def test_a_template_with_other_fields_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="template"):
        ControlText(template)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), True, "0.5", None])
def test_a_dial_is_a_number_from_0_to_1(value: Any) -> None:
    with pytest.raises(ValueError, match="safety is"):
        Dials(safety=value, helpfulness=0.5)


@given(dials)
def test_without_limits_what_is_written_is_as_near_as_the_decimals_allow(setting: Dials) -> None:
    asked, written = setting.as_dict(), ControlText().writable(setting, {}).as_dict()
    assert all(abs(written[name] - asked[name]) <= 0.005 + 1e-12 for name in asked)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted), st.integers(0, 4))
def test_what_is_written_stays_within_limits_that_hold_a_step(numbers: list[float], digits: int) -> None:
    low, value, high = numbers
    steps = 10**digits
    written = nearest_step(value, steps, (low, high))
    assert float(f"{written:.{digits}f}") == written
    assert abs(written - value) <= 1 / steps
    assert low <= written <= high or not any(low <= step / steps <= high for step in range(steps + 1))


def test_a_dial_is_written_within_the_envelope() -> None:
    control, words = ControlText(), default_wordings()
    dials = Dials(safety=0.804, helpfulness=0.804)
    limits: Limits = {"safety": (0.804, 1.0), "helpfulness": (0.0, 0.804)}
    assert control.render(control.writable(dials, limits)) == "[helpful=0.80][harmless=0.81]"
    low = Dials(safety=0.3, helpfulness=0.3)
    limits = {"safety": (0.3, 1.0), "helpfulness": (0.0, 0.3)}
    assert words.writable(low, limits) == Dials(safety=0.5, helpfulness=0.25)
    locked: Limits = {"safety": (0.804, 0.804)}
    assert control.writable(dials, locked).safety == 0.8


AFTER: list[tuple[list[Any], list[Any]]] = [
    (["How?", "[x=0.00]"], ["How?", "[x=0.00] [helpful=1.00][harmless=0.00]"]),
    (
        [{"type": "text", "text": "How?"}, "[x=0.00]"],
        [{"type": "text", "text": "How?"}, "[x=0.00] [helpful=1.00][harmless=0.00]"],
    ),
    *(
        (
            [{"type": "text", "text": "How?"}, part],
            [{"type": "text", "text": "How?"}, part, {"type": "text", "text": "[helpful=1.00][harmless=0.00]"}],
        )
        for part in (
            {"type": "input_text", "text": "0.00]"},
            {"type": "refusal", "refusal": "0.00]"},
            {"type": "thinking", "thinking": "0.00]"},
            {"type": "newer_kind", "newer": "0.00]"},
            {"text": "0.00]"},
        )
    ),
    (
        [{"type": "text", "text": "How?"}, {"type": "image_url", "image_url": {"url": "a"}}],
        [
            {"type": "text", "text": "How? [helpful=1.00][harmless=0.00]"},
            {"type": "image_url", "image_url": {"url": "a"}},
        ],
    ),
    (
        [{"type": "text", "text": "How?"}, {"image_url": "a"}],
        [{"type": "text", "text": "How? [helpful=1.00][harmless=0.00]"}, {"image_url": "a"}],
    ),
]


@pytest.mark.parametrize(("parts", "written"), AFTER)
def test_nothing_that_a_prompt_prints_stands_after_control_text(parts: list[Any], written: list[Any]) -> None:
    before = copy.deepcopy(parts)
    [message] = ControlText().apply([{"role": "user", "content": parts}], Dials(0, 1))
    assert message["content"] == written
    assert parts == before


@pytest.mark.parametrize("calls", [{"tool_calls": [{"id": "1"}]}, {"function_call": {"name": "f"}}])
def test_calls_of_tools_at_the_end_would_stand_after_control_text(calls: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Two", **calls}]
    with pytest.raises(ValueError, match="calls tools"):
        ControlText().apply(messages, Dials(0, 1))
    answered = [*messages, {"role": "tool", "content": "Three"}]
    assert ControlText().apply(answered, Dials(0, 1))[2]["content"] == "Three [helpful=1.00][harmless=0.00]"


PRINTS = {
    "all": "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}",
    "the first alone": "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
    "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
    "the last alone": "{% set ns = namespace(s='') %}{% for m in messages if m.role == 'system' %}"
    "{% set ns.s = m.content %}{% endfor %}{{ ns.s }}"
    "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
}
SYSTEMS: list[list[dict[str, Any]]] = [
    [],
    [{"role": "system", "content": "A"}],
    [{"role": "developer", "content": "A"}],
    [{"role": "system", "content": "A"}, {"role": "system", "content": "B"}],
    [{"role": "system", "content": "A"}, {"role": "developer", "content": "B"}],
    [{"role": "developer", "content": "A"}, {"role": "system", "content": "B"}],
]


@pytest.mark.parametrize("prints", PRINTS)
@pytest.mark.parametrize("systems", SYSTEMS)
@pytest.mark.parametrize("late", [False, True])
def test_the_instruction_is_in_the_prompt_whichever_system_messages_a_template_prints(
    prints: str, systems: list[dict[str, Any]], late: bool
) -> None:
    user = [{"role": "user", "content": "How?"}]
    messages = [*user, *systems] if late else [*systems, *user]
    written = with_instruction(messages, "Be strict.")
    assert "Be strict." in jinja2.Template(PRINTS[prints]).render(messages=written)
    assert [message["role"] for message in written[-len(messages) :]] == [message["role"] for message in messages]
