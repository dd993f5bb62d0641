"""What the commands' options may be; imports nothing that is slow, so that help is quick."""

from enum import StrEnum


class By(StrEnum):
    """What tells a prompt's group."""

    CLASSIFIER = "classifier"
    JUDGE = "judge"
    DEMO_ORACLE = "demo-oracle"


class BlendBy(StrEnum):
    """What blends two prompts into one; "demo" knows the demo world's sentences."""

    MODEL = "model"
    DEMO = "demo"


class On(StrEnum):
    """Where a model of this process runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
