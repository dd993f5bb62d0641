"""Policy files for tests."""

from pathlib import Path
from textwrap import dedent

from rheostat_server.callers.keys import digest_of

KIDS_KEY = "kids-key-that-only-tests-know"
LAB_KEY = "lab-key-that-only-tests-know"
ADMIN_KEY = "admin-key-that-only-tests-know"

POLICY = f"""\
# What each caller may do.
floor: {{safety: 0.2}}                 # no envelope goes below
anonymous: null
envelopes:
  children:
    safety: {{min: 0.8, default: 1.0}}
    helpfulness: {{max: 0.8}}
    modes: [adapter, rerank]
    candidates: 8
    outside: clamp
  lab:      {{safety: {{min: 0.1}}, outside: reject, rate: {{requests_per_minute: 600}}}}
keys:
  - {{name: kids-app, sha256: "{digest_of(KIDS_KEY)}", envelope: children}}
  - {{name: lab-app, sha256: "{digest_of(LAB_KEY)}", envelope: lab}}
  - {{name: operator, sha256: "{digest_of(ADMIN_KEY)}", envelope: lab, admin: true}}
presets:
  strict: {{safety: 1.0, helpfulness: 0.5}}
  bold: {{safety: 0.0, mode: prompt}}
"""


def write(folder: Path, text: str = POLICY) -> Path:
    path = folder / "policy.yaml"
    path.write_text(dedent(text))
    return path


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
