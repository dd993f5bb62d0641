"""What a new point of a blend costs, inside vLLM: the first request to each point of the grid, against a request after.

    python -m benchmarks.blend [--model FOLDER] [--blend FOLDER] [--rank 16] [--slots 25] [-- FLAGS OF VLLM]

The demo model, unless another is named, and without a blend two random experts of that rank on all of its linear
layers. Each request is for one token, so that it is the wait for the first one, and each has a question of its own, so
that no prompt is cached. Logits are compared with those of the merged weights, for the tokens that vLLM tells. With
fewer slots than points, the second round loads again what made room for others.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import httpx
import torch
import transformers
from peft import LoraConfig, get_peft_model

from benchmarks.overhead_report import machine
from rheostat_server import demo
from rheostat_server.blending.store import Blend, load_blend
from rheostat_server.contract import digest
from rheostat_server.contract.blend import BlendManifest, write_blend
from rheostat_server.contract.dials import Dials
from tools.processes import free_port, started, wait_until_ready
from tools.reference_merge import logits_of, merged

FLAGS: Final = ("--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", "256M", "--max-model-len", "512")
TOP: Final = 20
RIGHT: Final = 1e-4


@dataclass(slots=True)
class Found:
    """Seconds of the requests of each round, and the greatest difference of a logit from the merged weights'."""

    first: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    furthest: float = 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    ours, flags = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=demo.base_folder())
    parser.add_argument("--blend", type=Path)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--slots", type=int, default=25)
    options = parser.parse_args(ours)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.blend or random_blend(Path(scratch) / "blend", options.model, rank=options.rank)
        found, metrics = measured(options.model, folder, flags, slots=options.slots, log=Path(scratch) / "server.log")
    print(table(found))
    print(f"\ngreatest difference of a logit: {found.furthest:.2e}")
    print("\n".join(f"{name}: {value:g}" for name, value in metrics.items()))
    print(f"\n{machine()}")
    if found.furthest > RIGHT:
        raise SystemExit(f"logits differ by {found.furthest:.2e}; they must not by more than {RIGHT:g}")


def random_blend(folder: Path, base: Path, *, rank: int) -> Path:
    """One expert for each dial; at no point of the grid are both weights 0."""
    components = []
    for seed, dial in enumerate(("safety", "helpfulness")):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", init_lora_weights=False)
        config.task_type = "CAUSAL_LM"
        get_peft_model(model, config).save_pretrained(str(folder / dial), save_embedding_layers=False)
        weight = {"dial": dial, "points": [[0, 0.1], [1, 1]]}
        weights_digest = digest.adapter_digest(folder / dial)
        components.append({"name": dial, "folder": dial, "weights_digest": weights_digest, "weight": weight})
    manifest = {
        "name": "random",
        "base_model": {"name": base.name, "digest": digest.base_model_digest(base)},
        "components": components,
        "training": {"method": "none, random weights", "data_digests": {}},
        "licence": "Apache-2.0",
    }
    write_blend(BlendManifest.model_validate(manifest), folder)
    return folder


def measured(
    model: Path, folder: Path, flags: Sequence[str], *, slots: int, log: Path
) -> tuple[Found, dict[str, float]]:
    port = free_port()
    blend = load_blend(folder, base_digest=digest.base_model_digest(model))
    address = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "model"]
    asked: list[str | Path] = ["rheostat", "serve", model, "--engine", "vllm", "--blend", folder, *address]
    environment = {"RHEOSTAT_BLEND_SLOTS": str(slots), "VLLM_NO_USAGE_STATS": "1"}
    served = [*asked, "--", *FLAGS, "--logprobs-mode", "raw_logits", *flags]
    with started(served, log=log, environment=environment) as process:
        wait_until_ready(process, f"http://127.0.0.1:{port}/ready", log=log)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as http:
            found = asked_everywhere(http, blend, model)
            return found, blend_metrics(http)


def asked_everywhere(http: httpx.Client, blend: Blend, model: Path) -> Found:
    """Every point, then every point again; then the logits, which nobody waits for."""
    found, questions, levels = Found(), count(), blend.manifest.levels
    everywhere = [Dials(safety=safety, helpfulness=helpfulness) for safety, helpfulness in product(levels, levels)]
    ask(http, None, next(questions))
    for seconds in (found.first, found.again):
        for dials in everywhere:
            begun = perf_counter()
            ask(http, dials, next(questions))
            seconds.append(perf_counter() - begun)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    for dials in everywhere:
        found.furthest = max(found.furthest, difference(http, blend, model, dials, tokenizer, next(questions)))
    return found


def difference(http: httpx.Client, blend: Blend, model: Path, dials: Dials, tokenizer: Any, question: int) -> float:
    """The greatest, over the tokens that vLLM tells of the first one's distribution."""
    told = ask(http, dials, question)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    rendered = tokenizer.apply_chat_template(messages(question), tokenize=False, add_generation_prompt=True)
    ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    logits = logits_of(merged(model, blend.at(dials, {}).parts), ids)[-1]
    exact = (logits[int(each["token"].removeprefix("token_id:"))].item() for each in told)
    return max(abs(one - float(each["logprob"])) for one, each in zip(exact, told, strict=True))


def ask(http: httpx.Client, dials: Dials | None, question: int) -> Any:
    """One token at some dials, or without them."""
    control: dict[str, Any] = {"mode": "off"} if dials is None else {"mode": "blend", **named(dials)}
    body = {"model": "model", "messages": messages(question), "max_tokens": 1, "temperature": 0, "logprobs": True,
            "top_logprobs": TOP, "return_tokens_as_token_ids": True, "control": control}  # fmt: skip
    return http.post("/v1/chat/completions", json=body).raise_for_status().json()


def named(dials: Dials) -> dict[str, float]:
    return {str(name): value for name, value in dials.as_dict().items()}


def messages(question: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{question}. How do I repot a fern?"}]


def blend_metrics(http: httpx.Client) -> dict[str, float]:
    lines = (line.split() for line in http.get("/metrics").text.splitlines() if line.startswith("rheostat_blend"))
    return {name: float(value) for name, value in lines if not any(part in name for part in ("_bucket", "_created"))}


def table(found: Found) -> str:
    rows = [("the first request to a point", found.first), ("a request to it after", found.again)]
    lines = ["| ms, to one token | least | median | most |", "|---|---|---|---|"]
    for what, seconds in rows:
        least, median, most = (1000 * each for each in (min(seconds), statistics.median(seconds), max(seconds)))
        lines.append(f"| {what} | {least:.0f} | {median:.0f} | {most:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
