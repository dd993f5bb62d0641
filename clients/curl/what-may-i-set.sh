#!/usr/bin/env bash
# What this caller may set: the range of each dial, modes, presets, adapters.
set -euo pipefail
: "${BASE_URL:=http://127.0.0.1:8000}" "${API_KEY:=none}"

curl -sS --fail-with-body "$BASE_URL/v1/control" -H "Authorization: Bearer $API_KEY"
