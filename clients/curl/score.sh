#!/usr/bin/env bash
# What the scorers of the server say of an answer that is given.
set -euo pipefail
: "${BASE_URL:=http://127.0.0.1:8000}" "${API_KEY:=none}"

curl -sS --fail-with-body "$BASE_URL/v1/control/score" \
  -H "Authorization: Bearer $API_KEY" -H 'Content-Type: application/json' -d '{
  "messages": [{"role": "user", "content": "How do I repot a fern?"}],
  "response": "Plan: no steps, strict care, kind tone."
}'
