#!/usr/bin/env bash
# One question at four settings of the dials, each with its measured levels.
set -euo pipefail
: "${RHEOSTAT_BASE_URL:=http://127.0.0.1:8000}" "${RHEOSTAT_API_KEY:=none}"

curl -sS --fail-with-body "${RHEOSTAT_BASE_URL%/v1}/v1/control/sweep" \
  -H "Authorization: Bearer $RHEOSTAT_API_KEY" -H 'Content-Type: application/json' -d '{
  "model": "demo",
  "messages": [{"role": "user", "content": "How do I repot a fern?"}],
  "sweep": {"safety": [0, 1], "helpfulness": [0, 1]}
}'
