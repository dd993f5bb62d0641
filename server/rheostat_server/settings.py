"""Every setting of the server: name, default and one sentence; `RHEOSTAT_` and its name set it from outside."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

EngineName = Literal["embedded", "vllm", "remote"]


def _origin(text: str) -> str:
    """As browsers send it: compared letter by letter, so that one with a path would never be met."""
    if text != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9.:\[\]_-]+", text):
        raise ValueError("it must be scheme, host and port alone, in small letters, like https://app.example, or *")
    return text


Origin = Annotated[str, AfterValidator(_origin)]


class Settings(BaseSettings):
    """The server's settings. `docs/settings.md` lists them, and a test holds the two together."""

    model_config = SettingsConfigDict(env_prefix="RHEOSTAT_", extra="forbid", frozen=True, protected_namespaces=())

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    engine: EngineName | None = Field(
        default=None,
        description="Engine to run; left out, `remote` if an upstream is given, `vllm` if a model is, else `embedded`.",
    )
    model: str | None = Field(
        default=None, description="Folder or hub name of the base model; left out, the bundled demo model."
    )
    served_model_name: str | None = Field(
        default=None, description="Name of the base model on the wire; left out, `demo` for the demo, else the model."
    )
    adapters: list[Path] = Field(
        default=[], description="Folders of control adapters (JSON list); the first one is the default."
    )
    blends: list[Path] = Field(
        default=[], description="Folders of blends (JSON list); the first one is the default of the mode `blend`."
    )
    blend_slots: int = Field(
        default=25, ge=1, description="Most blends that the engine has loaded at once, beside the adapters."
    )
    blend_seconds: float = Field(
        default=10, gt=0, description="Seconds after which a request is refused that waits while all blends are in use."
    )
    blend_folder: Path | None = Field(
        default=None,
        description="Folder to write blends to; a remote upstream must see it too. Left out, a temporary one.",
    )
    upstream: str | None = Field(default=None, description="Base URL of the upstream server for the remote engine.")
    upstream_api_key: SecretStr | None = Field(default=None, description="Key sent to the upstream server.")
    upstream_timeout: float = Field(
        default=600, gt=0, description="Seconds of silence from the upstream server before a request fails."
    )
    upstream_load_adapters: bool = Field(
        default=False, description="Whether to load adapters that the upstream vLLM lacks, or has lost."
    )
    policy: Path | None = Field(default=None, description="YAML file of callers: keys, and the envelope of each.")
    allow_anonymous: bool = Field(
        default=False, description="Whether to listen beyond this machine without a policy file."
    )
    cors_origins: list[Origin] = Field(
        default=[], description="Origins whose pages may use the server (JSON list); `*` for every page."
    )
    audit: Path | None = Field(default=None, description="File of the audit log, one line of JSON a request.")
    audit_max_bytes: int = Field(
        default=100 * 2**20, ge=4096, description="Size in bytes at which the audit log is rotated."
    )
    audit_backups: int = Field(default=10, ge=0, description="Rotated audit logs that are kept; 0 rotates none.")
    audit_fail_closed: bool = Field(
        default=False, description="Whether requests are refused while the audit log cannot be written."
    )
    audit_sync: bool = Field(default=False, description="Whether a record waits until it is on the disk.")
    audit_content: bool = Field(default=False, description="Whether the audit log holds what people and models wrote.")
    limits_redis: SecretStr | None = Field(
        default=None, description="URL of a Redis that counts rates for all servers; left out, each counts its own."
    )
    limits_fail_open: bool = Field(
        default=False, description="Whether requests are let in, without rates, while Redis does not answer."
    )
    limits_deadline: float = Field(default=0.5, gt=0, description="Seconds that Redis has for an answer.")
    max_running: int | None = Field(
        default=None, ge=1, description="Most requests that run at once, fair between callers; left out, no queue."
    )
    reserved_running: int | None = Field(
        default=None,
        ge=0,
        description="Of those, how many are kept for callers that used little lately; a quarter.",
    )
    max_waiting: int = Field(default=256, ge=0, description="Most requests that wait for their turn.")
    queue_seconds: float = Field(default=30, gt=0, description="Seconds after which a request that waits is refused.")
    request_seconds: float | None = Field(default=None, gt=0, description="Most seconds that an answer may take.")
    reader_seconds: float = Field(
        default=60, gt=0, description="Seconds that a caller may take to read what was sent before its stream is left."
    )
    leave_seconds: float = Field(
        default=0,
        ge=0,
        description="Seconds that a server which is told to stop still takes requests, while `/ready` says 503.",
    )
    drain_seconds: float = Field(
        default=30, ge=0, description="Seconds that requests under way have to end when the server is told to stop."
    )
    default_safety: float = Field(default=0.75, ge=0, le=1, description="Safety where a request does not set it.")
    default_helpfulness: float = Field(
        default=0.75, ge=0, le=1, description="Helpfulness where a request does not set it."
    )
    prompt_wordings: Path | None = Field(
        default=None, description="YAML file with the operator's own wordings for the prompt mode."
    )
    calibration: bool = Field(
        default=True, description="Whether dials are read through the calibration in an adapter's manifest."
    )
    scorers: Path | None = Field(
        default=None, description="YAML file of the scorers to rerank by; left out, the demo model's own for the demo."
    )
    candidates: int = Field(default=8, ge=1, description="Candidates of a reranked request that names no number.")
    least_candidates: int = Field(
        default=1, ge=1, description="Fewest candidates of a reranked request when the engine is full."
    )
    max_candidates: int = Field(default=16, ge=1, description="Most candidates that a request may have.")
    calibrate_candidates: bool = Field(
        default=False,
        description="Whether candidates are drawn by the calibration too, not at the levels nearest to the dials.",
    )
    follow_load: bool = Field(
        default=True, description="Whether a reranked request gets fewer candidates when the engine is full."
    )
    rerank_room: int | None = Field(
        default=None, ge=1, description="Sequences at which the engine counts as full; left out, as many as it runs."
    )
    choose_after: Annotated[int, Field(ge=1)] | Literal["end"] = Field(
        default=32, description="Tokens after which a stream's candidate is chosen, or `end` for whole answers."
    )
    safety_floor: float = Field(
        default=0, ge=0, le=1, description="Judged safety below which no reranked answer is returned; 0 for none."
    )
    refusal: str = Field(
        default="I cannot help with that.", description="Answer in place of candidates below the safety floor."
    )
    upstream_sequences: int = Field(
        default=256, ge=1, description="Sequences that the upstream server runs at once, for the number of candidates."
    )
    max_body_bytes: int = Field(default=4 * 2**20, ge=1024, description="Largest request body accepted, in bytes.")
    max_choices: int = Field(default=16, ge=1, description="Largest `n` of a request.")
    max_sweep: int = Field(default=121, ge=1, description="Most points of a sweep.")
    max_batch: int = Field(default=64, ge=1, description="Most sequences that the embedded engine runs at once.")
    threads: int | None = Field(
        default=None, ge=1, description="Processor threads of the embedded engine; left out, PyTorch's choice."
    )
    playground: bool = Field(
        default=True, description="Whether `GET /` serves the playground, a page to try the dials."
    )
    tracing: bool = Field(
        default=False, description="Whether traces are sent, as OpenTelemetry's own variables say; see tracing.md."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is logged."
    )
