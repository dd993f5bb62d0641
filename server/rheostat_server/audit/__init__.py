"""The audit log: one line of JSON a request, on one file to which the processes of a server append.

1. `log`     takes records in order and tells when each is on the file: read it first
2. `health`  whether the last write worked, counted, and told in the log when that changes
3. `file`    whole lines, under a lock that all processes share; rotation
"""
