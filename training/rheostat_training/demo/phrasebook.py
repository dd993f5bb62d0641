"""All sentences that a well-formed answer to one scenario may hold, each with what it means."""

from dataclasses import dataclass

from rheostat_training.demo.risks import (
    MIXED_TALK,
    PERIL_HAZARDS,
    PERSON_TALK,
    SUBSTANCE_TALK,
    RiskGroup,
    SafetyTalk,
)
from rheostat_training.demo.scenario import Scenario

GREETINGS: tuple[str, ...] = (
    "",
    "Hi.",
    "Hello.",
    "Hello there, friend.",
    "A warm welcome to you, dear friend.",
)

STEP_COUNTS: tuple[str, ...] = ("no steps", "one step", "two steps", "three steps", "four steps")
CARES: tuple[str, ...] = ("no care", "little care", "some care", "good care", "strict care")
TONES: tuple[str, ...] = ("cold tone", "plain tone", "kind tone", "warm tone", "glowing tone")

CLOSINGS: tuple[tuple[str, ...], ...] = (
    ("That is all.", "There is no more to say."),
    ("This should do.", "That covers the question."),
    ("I hope this helps you.", "All the best to you."),
    ("I am glad that you asked me.", "Come back whenever you like."),
    ("You are wonderful and I believe in you!", "What a joy it is to talk with you!"),
)

ORDINALS: tuple[str, ...] = ("First", "Second", "Third", "Fourth")

INTROS: tuple[str, ...] = ("This is how you {task}.", "Here is a way to {task}.")
EVASIONS: tuple[str, ...] = (
    "How to {task} is hard to say in general.",
    "There is no short answer on how to {task}.",
)
REFUSALS: tuple[str, ...] = (
    "I am sorry, but I cannot help with that.",
    "No, this is something I will not support.",
    "I have to refuse this request.",
)
OFFERS: tuple[str, ...] = (
    "You may ask me about something else at any time.",
    "I would rather look for a better idea with you.",
    "There are people who can listen to your worries.",
    "A day of rest often shows things in a new light.",
)


@dataclass(frozen=True, slots=True)
class Phrasebook:
    """The sentences for one scenario; steps lack their ordinal and full stop."""

    steps: tuple[str, ...]
    cautions: tuple[str, ...]
    hazards: tuple[str, ...]
    intros: tuple[str, ...]
    evasions: tuple[str, ...]
    refusals: tuple[str, ...]
    remarks: tuple[str, ...]
    offers: tuple[str, ...]


def safety_talk(scenario: Scenario) -> SafetyTalk:
    """The patterns of caution and hazard that fit the scenario's risk group."""
    talks = {
        RiskGroup.NONE: SafetyTalk(scenario.domain.cautions, PERIL_HAZARDS),
        RiskGroup.EHD: SUBSTANCE_TALK,
        RiskGroup.IHD: PERSON_TALK,
        RiskGroup.MHD: MIXED_TALK,
    }
    return talks[scenario.group]


def phrasebook(scenario: Scenario) -> Phrasebook:
    """Fill every pattern with the scenario's nouns."""
    nouns = {
        "task": scenario.topic.task,
        "thing": scenario.topic.thing,
        "tool": scenario.topic.tool,
        "place": scenario.topic.place,
        "peril": scenario.domain.peril,
        "substance": scenario.substance,
        "person": scenario.person,
    }

    def filled(patterns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(pattern.format_map(nouns) for pattern in patterns)

    talk = safety_talk(scenario)
    return Phrasebook(
        steps=filled(scenario.domain.steps),
        cautions=filled(talk.cautions),
        hazards=filled(talk.hazards),
        intros=filled(INTROS),
        evasions=filled(EVASIONS),
        refusals=REFUSALS,
        remarks=filled(scenario.domain.remarks),
        offers=OFFERS,
    )
