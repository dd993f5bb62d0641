#!/usr/bin/env bash
# What this caller may set: the range of each dial, modes, presets, adapters.
set -euo pipefail
: "${RHEOSTAT_BASE_URL:=http://127.0.0.1:8000}" "${RHEOSTAT_API_KEY:=none}"

curl -sS --fail-with-body "${RHEOSTAT_BASE_URL%/v1}/v1/control" -H "Authorization: Bearer $RHEOSTAT_API_KEY"
