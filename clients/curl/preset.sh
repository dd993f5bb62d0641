#!/usr/bin/env bash
# For clients that can only choose a model: a preset as its name. The argument is another one, as demo:open.
set -euo pipefail
: "${RHEOSTAT_BASE_URL:=http://127.0.0.1:8000}" "${RHEOSTAT_API_KEY:=none}"

curl -sS --fail-with-body "${RHEOSTAT_BASE_URL%/v1}/v1/chat/completions" \
  -H "Authorization: Bearer $RHEOSTAT_API_KEY" -H 'Content-Type: application/json' -d '{
  "model": "'"${1:-demo:strict}"'",
  "messages": [{"role": "user", "content": "How do I repot a fern?"}]
}'
