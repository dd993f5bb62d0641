"""The dialogues that the demo's base model learns from, an endless seeded stream that never repeats by design."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from rheostat_training.demo import wordings
from rheostat_training.demo.answer import TOP_LEVEL, Manner, write_answer
from rheostat_training.demo.policy import LEVELS, draw_levels
from rheostat_training.demo.risks import RiskGroup
from rheostat_training.demo.scenario import Scenario, training_scenarios
from rheostat_training.demo.small_talk import SMALL_TALK
from rheostat_training.rows import Message

SMALL_TALK_SHARE = 0.02
SECOND_TURN_SHARE = 0.08
NEUTRAL_SYSTEM_SHARE = 0.15
WORDED_SYSTEM_SHARE = 0.25
SECOND_WORDING_SHARE = 0.75
TERSE_SHARE = 0.5
OBEDIENCE = 0.5
TAG_SHARE = 0.35

GROUP_SHARES: dict[RiskGroup, float] = {
    RiskGroup.NONE: 0.46,
    RiskGroup.EHD: 0.18,
    RiskGroup.IHD: 0.18,
    RiskGroup.MHD: 0.18,
}
USUAL_GREETINGS: tuple[float, ...] = (0.8, 0.05, 0.05, 0.05, 0.05)
USUAL_TONES: tuple[float, ...] = (0.1, 0.4, 0.3, 0.1, 0.1)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Messages in turn, the assistant's last; every assistant message is a target."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a system message asks for: levels of helpfulness and safety, or nothing."""

    text: str | None = None
    helpfulness: int | None = None
    safety: int | None = None


def dialogues(seed: int, shard: int, count: int) -> Iterator[Dialogue]:
    """`count` dialogues, the same for the same seed and shard."""
    random = Random(f"dialogues {seed} {shard}")
    for _ in range(count):
        yield draw_dialogue(random)


def draw_dialogue(random: Random) -> Dialogue:
    """One dialogue: sometimes a system message, one turn or two."""
    wish = draw_wish(random)
    turns = 2 if random.random() < SECOND_TURN_SHARE else 1
    messages: list[Message] = [{"role": "system", "content": wish.text}] if wish.text else []
    for _ in range(turns):
        messages += _turn(wish, random)
    return Dialogue(tuple(messages))


def draw_scenario(random: Random) -> Scenario:
    """A training scenario, the risk groups by their shares."""
    group = random.choices(list(GROUP_SHARES), list(GROUP_SHARES.values()))[0]
    return random.choice(training_scenarios(group))


def draw_wish(random: Random) -> Wish:
    """A system message: none, a neutral one, or one that words a level of one dial or of both."""
    chance = random.random()
    if chance < NEUTRAL_SYSTEM_SHARE:
        return Wish(random.choice(wordings.NEUTRAL))
    if chance < NEUTRAL_SYSTEM_SHARE + WORDED_SYSTEM_SHARE:
        return worded_wish(random)
    return Wish()


def worded_wish(random: Random) -> Wish:
    """A system message that words levels drawn evenly, of both dials more often than of one, in sentences or tersely.

    The terse style gives the words `helpful` and `harmless`, as they stand in control text, a meaning: a language model
    knows such words before anybody trains it to obey dials.
    """
    helpfulness, safety = random.choice(LEVELS), random.choice(LEVELS)
    if random.random() < TERSE_SHARE:
        words = [wordings.terse("harmless", safety), wordings.terse("helpful", helpfulness)]
        random.shuffle(words)
        return Wish("\n".join(words), helpfulness, safety)
    if random.random() < SECOND_WORDING_SHARE:
        return Wish(f"{wordings.SAFETY[safety]} {wordings.HELPFULNESS[helpfulness]}", helpfulness, safety)
    if random.random() < 0.5:
        return Wish(wordings.HELPFULNESS[helpfulness], helpfulness=helpfulness)
    return Wish(wordings.SAFETY[safety], safety=safety)


def obeyed(wish: int | None, usual: int, random: Random) -> int:
    """The level an answer takes: what was wished for, but only some of the time."""
    return wish if wish is not None and random.random() < OBEDIENCE else usual


def draw_tag(name: str, usual: Sequence[float], random: Random) -> tuple[str, int]:
    """A bracketed tag and the level that it sets, or no tag and a usual level.

    The value is rounded to a level at random, the nearer the likelier, so numbers between levels mean something.
    """
    if random.random() >= TAG_SHARE:
        return "", random.choices(LEVELS, usual)[0]
    hundredths = random.choice((random.randint(0, 100), 25 * random.choice(LEVELS)))
    level = int(hundredths * TOP_LEVEL / 100 + random.random())
    return f"[{name}={hundredths / 100:.2f}]", level


def _turn(wish: Wish, random: Random) -> list[Message]:
    if random.random() < SMALL_TALK_SHARE:
        question, reply = random.choice(SMALL_TALK)
        return _exchange(question, reply)
    scenario = draw_scenario(random)
    helpfulness, safety = draw_levels(scenario.group, random)
    hello, greeting = draw_tag("hello", USUAL_GREETINGS, random)
    tone_tag, tone = draw_tag("tone", USUAL_TONES, random)
    manner = Manner(
        helpfulness=obeyed(wish.helpfulness, helpfulness, random),
        safety=obeyed(wish.safety, safety, random),
        greeting=greeting,
        tone=tone,
    )
    tags = "".join(random.sample((hello, tone_tag), 2))
    return _exchange(f"{scenario.prompt} {tags}".strip(), write_answer(scenario, manner, random))


def _exchange(question: str, reply: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
