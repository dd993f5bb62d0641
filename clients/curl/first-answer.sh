#!/usr/bin/env bash
# A first answer under dials; its receipt stands in `control`.
set -euo pipefail
: "${RHEOSTAT_BASE_URL:=http://127.0.0.1:8000}" "${RHEOSTAT_API_KEY:=none}"

curl -sS --fail-with-body "${RHEOSTAT_BASE_URL%/v1}/v1/chat/completions" \
  -H "Authorization: Bearer $RHEOSTAT_API_KEY" -H 'Content-Type: application/json' -d '{
  "model": "demo",
  "messages": [{"role": "user", "content": "How do I repot a fern?"}],
  "control": {"safety": 0.9, "helpfulness": 0.2}
}'
