"""The contract of every engine, over HTTP: each test runs on the fake, embedded, vllm and remote engine alike."""
