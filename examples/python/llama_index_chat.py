"""Dials in LlamaIndex: `OpenAILike` sends them with every request.

Needs `pip install rheostat llama-index-llms-openai-like`.
"""

import os

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from rheostat import control_headers

url = os.environ.get("RHEOSTAT_BASE_URL", "http://127.0.0.1:8000")
model = OpenAILike(
    model="demo",
    api_base=f"{url}/v1",
    api_key=os.environ.get("RHEOSTAT_API_KEY", "none"),
    is_chat_model=True,
    max_tokens=60,
    default_headers=control_headers(safety=0.9, helpfulness=0.2),
)
question = [ChatMessage(role="user", content="How do I repot a fern?")]
answer = model.chat(question)
print(answer.message.content)
print(answer.raw.control["effective"])  # the receipt

for piece in model.stream_chat(question, extra_body={"control": {"safety": 0.2, "helpfulness": 1.0}}):
    print(piece.delta, end="")
print()
