#!/usr/bin/env bash
# What the scorers of the server say of an answer that is given.
set -euo pipefail
: "${RHEOSTAT_BASE_URL:=http://127.0.0.1:8000}" "${RHEOSTAT_API_KEY:=none}"

curl -sS --fail-with-body "${RHEOSTAT_BASE_URL%/v1}/v1/control/score" \
  -H "Authorization: Bearer $RHEOSTAT_API_KEY" -H 'Content-Type: application/json' -d '{
  "messages": [{"role": "user", "content": "How do I repot a fern?"}],
  "response": "Plan: no steps, strict care, kind tone."
}'
