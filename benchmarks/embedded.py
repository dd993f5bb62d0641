"""Tokens per second of the embedded engine beside transformers' own `generate`, at equal batch.

    python benchmarks/embedded.py [--threads 1] [--new-tokens 64] [--repeats 5] [--dtype float32]

A random Llama of 3.5M parameters, of the demo model's shape, answers the same prompts greedily to full length. Runs of
the two alternate, and the median of each is told; `--clock cpu` counts this process's seconds of CPU, for a machine
that others use too (with one thread). "3 mixed" gives a third of the rows to the base model and to each of
two LoRA adapters of rank 16.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rheostat_server.engines import EngineRequest
from rheostat_server.engines.embedded import EmbeddedEngine

Clock = Callable[[], float]
CLOCKS: Mapping[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
BATCHES = (1, 16, 64)
PROMPT_WORDS = 60
VOCABULARY = 1500
ADAPTERS = ("one@0", "two@0")
LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is asked of a run."""

    batch: int
    new_tokens: int
    models: Sequence[str]

    def model(self, row: int) -> str:
        return self.models[row % len(self.models)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    given = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        asyncio.run(compare(folder, given))


async def compare(folder: Path, given: argparse.Namespace) -> None:
    began = time.perf_counter()
    engine = EmbeddedEngine.load(
        folder / "base",
        served_name="base",
        adapters={name: folder / name for name in ADAPTERS},
        threads=given.threads,
        dtype=given.dtype,
        device=given.device,
    )
    print(f"load {time.perf_counter() - began:.2f} s")
    print(f"torch {torch.__version__}, {given.device}, {given.dtype}, {given.threads} thread(s), {given.clock} clock\n")
    reference = load_reference(folder, given)
    clock = CLOCKS[given.clock]
    print("| rows | adapters | engine tok/s | streamed tok/s | generate tok/s | engine / generate |")
    print("|---|---|---|---|---|---|")
    for batch in BATCHES:
        for label, names in (("base", ("base",)), ("1 adapter", ADAPTERS[:1]), ("3 mixed", ("base", *ADAPTERS))):
            setting = Setting(batch, given.new_tokens, names)
            await ask(engine, setting)
            runs: dict[str, list[float]] = {"engine": [], "stream": [], "generate": []}
            for _ in range(given.repeats):
                runs["engine"].append(await timed(ask(engine, setting), clock))
                runs["stream"].append(await timed(ask_streamed(engine, setting), clock))
                runs["generate"].append(generate(reference, setting, clock))
            rates = {key: batch * given.new_tokens / statistics.median(times) for key, times in runs.items()}
            print(
                f"| {batch} | {label} | {rates['engine']:.0f} | {rates['stream']:.0f} | {rates['generate']:.0f} "
                f"| {rates['engine'] / rates['generate']:.2f} |",
                flush=True,
            )
    await engine.close()


async def timed(work: Awaitable[None], clock: Clock) -> float:
    began = clock()
    await work
    return clock() - began


async def ask(engine: EmbeddedEngine, setting: Setting) -> None:
    await asyncio.gather(*(engine.complete(request(setting, row)) for row in range(setting.batch)))


async def ask_streamed(engine: EmbeddedEngine, setting: Setting) -> None:
    async def drain(row: int) -> None:
        async for _ in engine.stream(request(setting, row, stream=True)):
            pass

    await asyncio.gather(*(drain(row) for row in range(setting.batch)))


def request(setting: Setting, row: int, **more: Any) -> EngineRequest:
    body = {
        "model": setting.model(row),
        "messages": [{"role": "user", "content": prompt(row)}],
        "max_tokens": setting.new_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    return EngineRequest({**body, **more}, request_id=str(row))


def prompt(row: int) -> str:
    return " ".join(f"w{(row * 31 + place * 7) % (VOCABULARY - 2)}" for place in range(PROMPT_WORDS))


Reference = tuple[Any, Any]


def load_reference(folder: Path, given: argparse.Namespace) -> Reference:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype=given.dtype).to(given.device)
    adapted = peft.PeftModel.from_pretrained(model, str(folder / ADAPTERS[0]), adapter_name="one")
    adapted.load_adapter(str(folder / ADAPTERS[1]), adapter_name="two")
    return adapted.eval(), transformers.AutoTokenizer.from_pretrained(folder / "base")


def generate(reference: Reference, setting: Setting, clock: Clock) -> float:
    """Seconds for the same rows by transformers and PEFT: the adapter switched once, or PEFT's mixed batch."""
    model, tokenizer = reference
    chats = [[{"role": "user", "content": prompt(row)}] for row in range(setting.batch)]
    inputs = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
    ).to(model.device)
    more: dict[str, Any] = {"max_new_tokens": setting.new_tokens, "min_new_tokens": setting.new_tokens}
    began = clock()
    if setting.models == ("base",):
        with model.disable_adapter():
            tokens = model.generate(**inputs, do_sample=False, **more)
    elif len(setting.models) == 1:
        model.set_adapter("one")
        tokens = model.generate(**inputs, do_sample=False, **more)
    else:
        known = {"base": "__base__", ADAPTERS[0]: "one", ADAPTERS[1]: "two"}
        names = [known[setting.model(row)] for row in range(setting.batch)]
        tokens = model.generate(**inputs, do_sample=False, adapter_names=names, **more)
    tokenizer.batch_decode(tokens)
    return clock() - began


def build(folder: Path) -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY - 1)} | {"<end>": VOCABULARY - 1}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",
        pad_token="<end>",
        padding_side="left",
        chat_template="{% for m in messages %}{{ m.content }} <end> {% endfor %}",
    ).save_pretrained(folder / "base")
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            eos_token_id=VOCABULARY - 1,
            pad_token_id=VOCABULARY - 1,
            initializer_range=0.2,
        )
    )
    model.save_pretrained(folder / "base")
    for name in ADAPTERS:
        base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base")
        adapted = peft.get_peft_model(base, peft.LoraConfig(r=16, target_modules=LINEAR_LAYERS, task_type="CAUSAL_LM"))
        randomise(adapted.named_parameters)
        adapted.save_pretrained(str(folder / name))


def randomise(parameters: Callable[[], Any]) -> None:
    for name, parameter in parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)


if __name__ == "__main__":
    main()
