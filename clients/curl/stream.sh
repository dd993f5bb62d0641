#!/usr/bin/env bash
# The same as a stream of server-sent events; the receipt comes in the last one before [DONE].
set -euo pipefail
: "${RHEOSTAT_BASE_URL:=http://127.0.0.1:8000}" "${RHEOSTAT_API_KEY:=none}"

curl -sS --fail-with-body --no-buffer "${RHEOSTAT_BASE_URL%/v1}/v1/chat/completions" \
  -H "Authorization: Bearer $RHEOSTAT_API_KEY" -H 'Content-Type: application/json' -d '{
  "model": "demo",
  "stream": true,
  "messages": [{"role": "user", "content": "How do I repot a fern?"}],
  "control": {"safety": 0.9, "helpfulness": 0.2}
}'
