"""What a caller may have, and whose turn it is: limits by minute, requests at once, and a queue that is fair.

1. `rate_limits` limits by minute and in parallel (`rates`), checked before the work and after it: read it first
2. `fair_queue`  at most so many requests at once; the others wait their turn, fair between callers
3. `quota`       what is left to a caller, as headers; pure
4. `refusals`    every error that the two raise
5. `windows`     what was used in the last minute, and leases of requests at once: the protocols
6. `memory`      both in this process
7. `shared`      both in Redis, for all workers together
8. `watch`       Redis gone or slow: a deadline, and what happens then
9. `afterwards`  work that is done although its request was cancelled

`telemetry` holds the metrics.
"""
