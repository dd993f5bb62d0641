"""Writes the OpenAPI document that the TypeScript client is typed by, as a server without a policy serves it."""

import json
from pathlib import Path
from typing import Any, Final

from rheostat_server.adapters import AdapterStore
from rheostat_server.app import create_app
from rheostat_server.engines.fake import FakeEngine
from rheostat_server.serve import make_runtime
from rheostat_server.settings import Settings

FILE: Final = Path(__file__).parents[1] / "clients/typescript/openapi.json"


def document() -> str:
    """The same whatever the environment sets: the defaults of the settings alone are taken."""
    runtime = make_runtime(FakeEngine(served=("demo",)), AdapterStore(), Settings.model_construct(), None)
    told: dict[str, Any] = create_app(runtime).openapi()
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(document())
