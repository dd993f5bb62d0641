"""Named settings of the usual reward and safety models; an operator's own fields go before a preset's.

What is written here was read in the models' cards and configurations; docs/scorers.md says what was not run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Preset:
    """Fields of a classifier's spec, the licence of its model, and what to know before it is used.

    `open` names fields that the preset cannot know and the operator must give.
    """

    settings: Mapping[str, Any]
    licence: str
    note: str
    open: tuple[str, ...] = field(default=())


PRESETS: Final[Mapping[str, Preset]] = {
    "skywork-reward-v2": Preset(
        {
            "model": "Skywork/Skywork-Reward-V2-Qwen3-0.6B",
            "dial": "helpfulness",
            "reads": "chat",
            "dtype": "bfloat16",
            "max_tokens": 4096,
        },
        licence="Apache-2.0 (its siblings made of Llama have Meta's)",
        note="A raw Bradley-Terry reward of preference at large, which also falls for harm. Its zero and unit mean "
        "nothing by themselves: measure rewards of your own model's answers and give them as the scale.",
        open=("scale",),
    ),
    "openassistant-reward": Preset(
        {
            "model": "OpenAssistant/reward-model-deberta-v3-large-v2",
            "revision": "refs/pr/3",
            "dial": "helpfulness",
            "reads": "pair",
            "scale": "sigmoid",
        },
        licence="MIT",
        note="A Bradley-Terry reward of question and answer; the main branch holds a pickle alone, the revision "
        "safetensors. Reads 512 tokens.",
    ),
    "toxic-bert": Preset(
        {
            "model": "unitary/toxic-bert",
            "dial": "safety",
            "reads": "answer",
            "label": "toxic",
            "scale": "sigmoid",
            "invert": True,
        },
        licence="Apache-2.0",
        note="Rude and hateful words in comments of Wikipedia: it does not see what is harmful politely.",
    ),
    "koala-text-moderation": Preset(
        {
            "model": "KoalaAI/Text-Moderation",
            "dial": "safety",
            "reads": "answer",
            "label": "OK",
            "scale": "softmax",
        },
        licence="OpenRAIL",
        note="Nine classes of OpenAI's moderation, one of them OK; English, macro F1 0.33 by its card.",
    ),
    "protectai-rejection": Preset(
        {
            "model": "protectai/distilroberta-base-rejection-v1",
            "dial": "helpfulness",
            "reads": "answer",
            "label": "NORMAL",
            "scale": "softmax",
        },
        licence="Apache-2.0",
        note="Whether an answer is a refusal: helpfulness only in that a refusal does not help. English.",
    ),
}
