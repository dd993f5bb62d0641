"""What is counted of callers; none of it names one."""

from typing import Final

from prometheus_client import Counter, Gauge

POLICY_RELOADS: Final = Counter("rheostat_policy_reloads", "Times that the policy file was read anew.", ["outcome"])
POLICY_LOADED: Final = Gauge(
    "rheostat_policy_loaded_timestamp_seconds", "When the policy in force was read.", multiprocess_mode="livemin"
)
POLICY_KEYS: Final = Gauge("rheostat_policy_keys", "Keys of the policy in force.", multiprocess_mode="livemostrecent")
UNAUTHORIZED: Final = Counter("rheostat_unauthorized", "Requests refused for their key or the want of one.")
