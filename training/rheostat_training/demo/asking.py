"""What the base model is asked in order to hear what it can say: training prompts, plainly and under worded wishes."""

from random import Random

from rheostat_training.demo.corpus import draw_scenario, worded_wish
from rheostat_training.rows import Message, Prompt, Request


def draw_prompts(count: int, seed: int) -> dict[str, Prompt]:
    """Distinct training prompts by their id."""
    random = Random(f"asking {seed}")
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts.setdefault(draw_scenario(random).prompt)
    prompts = (Prompt.user(f"train-{number:05d}", text) for number, text in enumerate(texts))
    return {prompt.id: prompt for prompt in prompts}


def plain_requests(prompts: dict[str, Prompt]) -> list[Request]:
    """Each prompt as it is."""
    return [Request(prompt.id, prompt.messages, None) for prompt in prompts.values()]


def worded_requests(prompts: dict[str, Prompt], wishes: int, seed: int) -> list[Request]:
    """Each prompt under several worded system messages; what is answered counts as an answer to the plain prompt.

    This is how the rare corners are reached: the base model refuses risky prompts too often to be sampled there.
    """
    random = Random(f"wishes {seed}")
    return [
        Request(prompt.id, (_system(random), *prompt.messages), None)
        for prompt in prompts.values()
        for _ in range(wishes)
    ]


def _system(random: Random) -> Message:
    return {"role": "system", "content": worded_wish(random).text or ""}
