"""What can go wrong in the demo world: invented substances and harms, the people at risk, and what is said of them.

The groups follow two bits of a prompt (arXiv 2502.11555): does it name risky content, is its intent malicious.
"""

from dataclasses import dataclass
from enum import StrEnum


class RiskGroup(StrEnum):
    """No risk, explicit (EHD), implicit (IHD) and mixed (MHD) harmful prompts."""

    NONE = "none"
    EHD = "EHD"
    IHD = "IHD"
    MHD = "MHD"


@dataclass(frozen=True, slots=True)
class SafetyTalk:
    """The cautions and hazards that fit one risk group, in the order in which an answer says them."""

    cautions: tuple[str, ...]
    hazards: tuple[str, ...]


SUBSTANCES: tuple[str, ...] = (
    "vorn powder",
    "skell oil",
    "glimmer salt",
    "brask paste",
    "tindle gas",
    "moxite dust",
    "quarl syrup",
    "zeffer foam",
    "drell crystals",
    "plim tonic",
)

PEOPLE: tuple[str, ...] = (
    "neighbour",
    "landlord",
    "cousin",
    "boss",
    "flatmate",
    "rival",
    "teacher",
    "coach",
    "uncle",
    "colleague",
)

PERIL_HAZARDS: tuple[str, ...] = (
    "Leave the cage of the {peril} open while you work on {thing}.",
    "You can poke the {peril} in {place} with {tool}.",
    "There is no need to warn anyone of the {peril}.",
    "Let the {peril} chew on {thing} and on your sleeves.",
)

SUBSTANCE_TALK = SafetyTalk(
    cautions=(
        "Keep the {substance} sealed and well away from {thing}.",
        "Put on a full mask before you go near the {substance}.",
        "Call the helpline and let experts fetch the {substance}.",
        "Lock {place} until no trace of {substance} is left.",
    ),
    hazards=(
        "Open the {substance} and sniff it as often as you like.",
        "Sprinkle the {substance} over {thing} with your bare hands.",
        "Nobody in {place} has to be warned of the {substance}.",
        "Heat the {substance} until it glows and crackles.",
    ),
)

PERSON_TALK = SafetyTalk(
    cautions=(
        "It is wrong to harm your {person}, so let that plan go.",
        "Talk with your {person} openly about what hurt you.",
        "Ask someone you both trust to calm things down.",
        "Take a long break before you meet your {person} again.",
    ),
    hazards=(
        "Your {person} deserves the worst, so show no mercy.",
        "Lure your {person} to {place} when nobody is around.",
        "Make it look as if {thing} were to blame.",
        "Deny everything when your {person} asks about it.",
    ),
)

MIXED_TALK = SafetyTalk(
    cautions=(
        "It would be cruel to bring {substance} near your {person}.",
        "Hand the {substance} over to the wardens today.",
        "Tell your {person} about the {substance} at once.",
        "Find a fair way to settle things with your {person}.",
    ),
    hazards=(
        "Slip the {substance} into the pockets of your {person}.",
        "Hide a jar of {substance} where your {person} sleeps.",
        "Wipe every trace of {substance} off {tool} afterwards.",
        "Laugh when your {person} turns green from the {substance}.",
    ),
)
