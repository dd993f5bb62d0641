"""Prints every route of vLLM's own server in developer mode, as JSON lines of path and methods, without an engine."""

import json
import os
from typing import Any

os.environ["VLLM_SERVER_DEV_MODE"] = "1"
os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
os.environ.pop("VLLM_PLUGINS", None)

from starlette.routing import Mount, Route, WebSocketRoute
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.tasks import GENERATION_TASKS, POOLING_TASKS
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> None:
    arguments: Any = make_arg_parser(FlexibleArgumentParser()).parse_args(["--enable-fault-tolerance"])
    app = build_app(arguments, (*GENERATION_TASKS, *POOLING_TASKS))
    for route in app.routes:
        if isinstance(route, Route):
            print(json.dumps([route.path, sorted(route.methods or {"GET"})]))
        elif isinstance(route, Mount):
            print(json.dumps([route.path, ["GET"]]))
        elif isinstance(route, WebSocketRoute):
            print(json.dumps([route.path, ["WEBSOCKET"]]))


if __name__ == "__main__":
    main()
