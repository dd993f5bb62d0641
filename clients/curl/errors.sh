#!/usr/bin/env bash
# Three requests that are refused, each with its status: a level beyond 1, a mode and a preset that are not known.
set -euo pipefail
: "${RHEOSTAT_BASE_URL:=http://127.0.0.1:8000}" "${RHEOSTAT_API_KEY:=none}"

ask() {
  curl -sS -w '\nstatus %{http_code}\n' "${RHEOSTAT_BASE_URL%/v1}/v1/chat/completions" \
    -H "Authorization: Bearer $RHEOSTAT_API_KEY" -H 'Content-Type: application/json' -d '{
    "model": "'"$1"'", "messages": [{"role": "user", "content": "How do I repot a fern?"}], "control": '"$2"'
  }'
}

ask demo '{"safety": 1.5}'
ask demo '{"mode": "magic"}'
ask demo:loud '{}'
