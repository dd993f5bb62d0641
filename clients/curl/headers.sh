#!/usr/bin/env bash
# For clients that can add headers, but no field of the body.
set -euo pipefail
: "${RHEOSTAT_BASE_URL:=http://127.0.0.1:8000}" "${RHEOSTAT_API_KEY:=none}"

curl -sS --fail-with-body "${RHEOSTAT_BASE_URL%/v1}/v1/chat/completions" \
  -H "Authorization: Bearer $RHEOSTAT_API_KEY" -H 'Content-Type: application/json' \
  -H 'X-Control-Safety: 0.9' -H 'X-Control-Helpfulness: 0.2' -H 'X-Control-Mode: prompt' -d '{
  "model": "demo",
  "messages": [{"role": "user", "content": "How do I repot a fern?"}]
}'
