"""Why Rheostat does not start in vLLM."""


class CannotServe(ValueError):
    """vLLM is asked for a server that Rheostat cannot answer in; the message says what to change."""
