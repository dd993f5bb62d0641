"""The client: one answer, a conversation at other dials, a stream, and what was refused."""

from rheostat import Client, RheostatError

with Client() as client:
    answer = client.chat("How do I repot a fern?", dials={"safety": 0.9, "helpfulness": 0.2})
    print(answer.content)
    print(answer.receipt.effective, answer.receipt.mode)

    careful = client.with_dials(safety=1.0, helpfulness=0.8)
    conversation = [{"role": "user", "content": "How do I repot a fern?"}]
    conversation += [careful.chat(conversation).message, {"role": "user", "content": "How do I repot a rose?"}]
    with careful.stream(conversation) as stream:
        for piece in stream:
            print(piece, end="", flush=True)
    print("\n", stream.receipt.timing_ms)

    try:
        client.chat("How do I repot a fern?", model="other")
    except RheostatError as error:
        print(type(error).__name__, error.status, error.code, error.message)
