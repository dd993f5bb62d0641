"""Dials in LangChain: `ChatOpenAI` sends them with every request. Needs `pip install rheostat langchain-openai`."""

import os

from langchain_openai import ChatOpenAI

from rheostat import control_headers

url = os.environ.get("RHEOSTAT_BASE_URL", "http://127.0.0.1:8000")
model = ChatOpenAI(
    model="demo",
    base_url=f"{url}/v1",
    api_key=os.environ.get("RHEOSTAT_API_KEY", "none"),
    default_headers=control_headers(safety=0.9, helpfulness=0.2),
    max_tokens=60,
)
print(model.invoke("How do I repot a fern?").content)

freer = model.bind(extra_body={"control": {"safety": 0.2, "helpfulness": 1.0}})
for piece in freer.stream("How do I repot a fern?"):
    print(piece.content, end="")
print()
