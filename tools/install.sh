#!/usr/bin/env bash
# Makes .venv with everything in it: server, training, checks, and real vLLM for the CPU where a build of it exists.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}
torch_index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
stamp=.venv/installed
wanted=$(cat pyproject.toml requirements/linux-cpu.lock tools/install.sh tools/vllm_metadata.py | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "install: '$python' is not Python 3.11 or newer; name one with PYTHON=…" >&2
  exit 1
}
[ -x .venv/bin/pip ] || "$python" -m venv .venv
pip=".venv/bin/pip --disable-pip-version-check"
$pip install -q -U "pip>=25.1"

# A CPU build of torch first and by its exact name: asked for loosely, pip takes several GB of CUDA packages.
install_torch() {
  $pip install -q torch==2.13.0+cpu 2>/dev/null ||
    $pip install -q torch==2.13.0+cpu --extra-index-url "$torch_index" 2>/dev/null ||
    { echo "install: no CPU build of torch by that name; taking the default one"; $pip install -q torch==2.13.0; }
}

# The lock is of Linux, x86-64, Python 3.11 and a CPU build of torch, which vLLM for the CPU needs.
locked_platform() {
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] && .venv/bin/python -c '
import sys
from importlib.metadata import version
sys.exit(sys.version_info[:2] != (3, 11) or version("torch") != "2.13.0+cpu")'
}

echo "install: torch"
install_torch
if locked_platform; then
  echo "install: the locked packages, real vLLM for the CPU among them"
  $pip install -q --no-deps -r requirements/linux-cpu.lock
  $pip install -q --no-deps --no-build-isolation -e .
  .venv/bin/python tools/vllm_metadata.py
else
  echo "install: no lock for this platform, resolving; vLLM is left out, and its tests will be skipped"
  $pip install -q --group dev -e '.[embedded,training]'
fi
echo "$wanted" > "$stamp"
