"""The embedded engine: transformers and PEFT in this process, batched continuously.

A request's way, one module a step:

1. `request`   OpenAI's body becomes a checked `ChatRequest`; what cannot be honoured is refused
2. `prompt`    messages become token ids, by the model's chat template
3. `engine`    the request crosses to the worker thread as a `Job`
4. `worker`    the one thread that runs the model
5. `batch`     a step: prompts are read, every row gets one token (read this file first)
6. `model`     the forward pass; `attention` and `cache` let rows join and leave, `lora` gives each its adapter
7. `sampling`  logits become tokens
8. `row`       a token becomes text (`text`), and may end the answer
9. `answer`    text becomes OpenAI's completion or its chunks
"""

from rheostat_server.engines.embedded.engine import EmbeddedEngine

__all__ = ["EmbeddedEngine"]
