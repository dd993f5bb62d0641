"""A tiny fit of a model that the processes of a launch hold together, on CPUs, where accelerate itself never shards.

`python -m torch.distributed.run -m tests.training.sharded_fit TOKENIZER OUT PLAN` fits by that plan, after
one that must be refused.
"""

import sys
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from pydantic import TypeAdapter
from torch.distributed.tensor import DTensor

from rheostat_training.fit import FitPlan, fit
from rheostat_training.progress import Progress
from tests.training.tiny_fit import tiny_examples, tiny_llama, tiny_prompts


def shard_on_cpus() -> None:
    """Makes every Accelerator of this process shard as `training/configs/fsdp.yaml` has it."""
    state = Accelerator().state
    state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        reshard_after_forward=True,
        cpu_offload=False,
        state_dict_type="FULL_STATE_DICT",
    )
    PartialState().distributed_type = state.distributed_type = DistributedType.FSDP


def main(tokenizer: Path, out: Path, plan: FitPlan) -> None:
    shard_on_cpus()
    base = tiny_llama(tokenizer)

    def begin(chosen: FitPlan) -> None:
        fit(base, tiny_prompts(), tiny_examples(), chosen, out, report_to="none", progress=Progress.silent())

    try:
        begin(replace(plan, anchors=2))
    except ValueError as refused:
        print(refused)
    begin(plan)
    assert all(isinstance(weight, DTensor) for weight in base.model.parameters())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), TypeAdapter(FitPlan).validate_json(sys.argv[3]))
