#!/usr/bin/env bash
# A dry run: the dials that would be in force, and the body that the engine would get. No model runs.
set -euo pipefail
: "${RHEOSTAT_BASE_URL:=http://127.0.0.1:8000}" "${RHEOSTAT_API_KEY:=none}"

curl -sS --fail-with-body "${RHEOSTAT_BASE_URL%/v1}/v1/control/plan" \
  -H "Authorization: Bearer $RHEOSTAT_API_KEY" -H 'Content-Type: application/json' -d '{
  "model": "demo:strict",
  "messages": [{"role": "user", "content": "How do I repot a fern?"}],
  "control": {"helpfulness": 0.8, "mode": "prompt"}
}'
