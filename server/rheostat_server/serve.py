"""Starts the server that the settings ask for: one function an engine."""

import asyncio
import ipaddress
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog
import uvicorn

from rheostat_server import demo
from rheostat_server.adapters import AdapterStore, digest_of_base, load_adapters
from rheostat_server.api.cross_origin import open_to
from rheostat_server.app import create_app
from rheostat_server.blending.rack import Rack
from rheostat_server.blending.store import BlendStore, load_blends
from rheostat_server.callers.file import Known, read_policy
from rheostat_server.callers.shelf import Shelf
from rheostat_server.contract.dials import DIAL_NAMES
from rheostat_server.contract.wordings import default_wordings
from rheostat_server.draining_server import DrainingServer, Times
from rheostat_server.engines import Engine
from rheostat_server.engines.blend_files import BlendFiles
from rheostat_server.errors import CannotStart
from rheostat_server.log import uvicorn_logging
from rheostat_server.modes.prompting import read_wordings
from rheostat_server.modes.reranking import SCHEDULES, Check, Schedule
from rheostat_server.packages import missing
from rheostat_server.plan import Means, Selection
from rheostat_server.reranking.track import Track
from rheostat_server.runtime import Runtime, admission_from, defaults_from, policy_from
from rheostat_server.scorers.build import load_panel, read_scorers
from rheostat_server.scorers.spec import ScorersFile
from rheostat_server.scorers.spec.common import ScorersError
from rheostat_server.settings import EngineName, Settings
from rheostat_server.tracing.start import check_tracing, start_tracing

log = structlog.get_logger(__name__)

Start = Callable[[Settings, Sequence[str]], None]
Loaded = tuple[Engine, AdapterStore, BlendStore]
NO_BLENDS: Final = BlendStore()


def start(settings: Settings, *, engine_flags: Sequence[str]) -> None:
    """Runs a server until it is told to stop.

    Raises:
        CannotStart, EngineUnavailable: the message says why.
    """
    STARTS[check(settings, engine_flags)](settings, engine_flags)


def check(settings: Settings, engine_flags: Sequence[str]) -> EngineName:
    """The engine to start, once everything was checked that needs no model to be loaded.

    Raises:
        CannotStart: the message says what does not fit.
    """
    engine = engine_for(settings)
    if engine_flags and engine != "vllm":
        raise CannotStart(f"{' '.join(engine_flags)!r} stands after --, and the engine {engine!r} takes no flags")
    if settings.upstream is not None and engine != "remote":
        raise CannotStart(
            f"upstream is {settings.upstream!r}, and the engine is {engine!r}; an upstream goes with remote"
        )
    check_scorers(settings)
    check_callers(settings)
    check_tracing(settings)
    return engine


def engine_for(settings: Settings) -> EngineName:
    """The engine that is named, or the one that goes with what is named."""
    if settings.engine is not None:
        return settings.engine
    if settings.upstream is not None:
        return "remote"
    return "embedded" if settings.model is None else "vllm"


def start_embedded(settings: Settings, flags: Sequence[str]) -> None:
    run_app(*load_embedded(settings), settings)


def start_remote(settings: Settings, flags: Sequence[str]) -> None:
    run_app(*connect_remote(settings), settings)


def load_embedded(settings: Settings) -> Loaded:
    """Raises CannotStart: the message says why."""
    _check_installed("torch", engine="embedded")
    base = Path(settings.model) if settings.model else demo.base_folder()
    if not base.is_dir():
        raise CannotStart(f"{base} is not a folder; the embedded engine serves a model from a local folder")
    digest = digest_of_base(base)
    adapters = load_adapters(adapter_folders(settings), base_digest=digest)
    blends = load_blends(settings.blends, base_digest=digest, taken=adapters.names)
    from rheostat_server.engines.embedded import EmbeddedEngine

    engine = EmbeddedEngine.load(
        base,
        served_name=served_name(settings),
        adapters=adapters.folders(),
        components=blends.folders(),
        max_batch=settings.max_batch,
        threads=settings.threads,
    )
    return engine, adapters, blends


def connect_remote(settings: Settings) -> Loaded:
    """Must be called outside of an event loop.

    Raises:
        CannotStart, EngineUnavailable: the message says why.
    """
    if settings.upstream is None:
        raise CannotStart("the remote engine needs --upstream, the base URL of an OpenAI-compatible server")
    if settings.served_model_name is not None:
        raise CannotStart(
            f"served_model_name is {settings.served_model_name!r}; the remote engine keeps the names of its upstream"
        )
    from rheostat_server.engines.remote import RemoteEngine, Upstream, UpstreamBlends

    upstream = Upstream(settings.upstream, api_key=settings.upstream_api_key, timeout=settings.upstream_timeout)
    adapters = load_adapters(settings.adapters, base_digest=None)
    blends = load_blends(settings.blends, base_digest=None, taken=adapters.names)
    engine = asyncio.run(
        RemoteEngine.connect(
            upstream,
            model=settings.model,
            adapters=adapters.folders(),
            load_adapters=settings.upstream_load_adapters,
            sequences=settings.upstream_sequences,
            blends=UpstreamBlends(_shared_files(settings), settings.blend_slots) if settings.blends else None,
            trials=blends.trials(),
        )
    )
    return engine, adapters, blends


def _shared_files(settings: Settings) -> BlendFiles:
    """Raises CannotStart where there is no folder in which the upstream could find blends, or nothing to make them."""
    if missing("torch"):
        raise CannotStart(
            "blends are made with torch, which is not installed; in the checkout, run: pip install '.[embedded]'"
        )
    if settings.blend_folder is None:
        raise CannotStart(
            "blends are given, and the upstream server reads them from a folder that it sees too; name one with "
            "RHEOSTAT_BLEND_FOLDER"
        )
    return blend_files(settings, for_others=True)


def blend_files(settings: Settings, *, for_others: bool = False) -> BlendFiles:
    """Raises CannotStart where nothing can be written."""
    try:
        return BlendFiles.within(settings.blend_folder, for_others=for_others)
    except OSError as exc:
        raise CannotStart(
            f"blends cannot be written to {settings.blend_folder or 'a temporary folder'}: {exc}"
        ) from exc


def start_vllm(settings: Settings, flags: Sequence[str]) -> None:
    check_vllm()
    from rheostat_server.engines.vllm.launch import run_vllm

    run_vllm(settings, flags)


def check_vllm() -> None:
    """Raises CannotStart where vLLM is not installed."""
    _check_installed("vllm", engine="vllm")


def _check_installed(module: str, *, engine: EngineName) -> None:
    if missing(module):
        raise CannotStart(
            f"the engine {engine!r} needs {module}, which is not installed; in the checkout, run: "
            f"pip install '.[{engine}]'"
        )


STARTS: Final[Mapping[EngineName, Start]] = {
    "embedded": start_embedded,
    "remote": start_remote,
    "vllm": start_vllm,
}


def run_app(engine: Engine, adapters: AdapterStore, blends: BlendStore, settings: Settings) -> None:
    try:
        runtime = make_runtime(engine, adapters, settings, scorers_file(settings), blends=blends)
    except BaseException:
        asyncio.run(engine.close())
        raise
    log.info(
        "rheostat serves", engine=engine.name, models=list(engine.models()), adapters=adapters.ids, blends=blends.ids,
        url=f"http://{settings.host}:{settings.port}/v1",
    )  # fmt: skip
    app = open_to(settings.cors_origins, create_app(runtime))
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_level=settings.log_level, log_config=uvicorn_logging()
    )
    DrainingServer(config, runtime.admission.drain, Times.of(settings)).run()


@asynccontextmanager
async def closed_on_failure(engine: Engine) -> AsyncGenerator[None, None]:
    """Of a server that does not come to its start no files of blends are left."""
    try:
        yield
    except BaseException:
        await engine.close()
        raise


def make_runtime(
    engine: Engine,
    adapters: AdapterStore,
    settings: Settings,
    scorers: Path | None,
    *,
    blends: BlendStore = NO_BLENDS,
) -> Runtime:
    """Loads the scorers of that file too, which may take as long as loading a model.

    Raises:
        CannotStart: a file that the settings name does not fit; the message says which and why.
    """
    wordings = read_wordings(settings.prompt_wordings) if settings.prompt_wordings else default_wordings()
    means = Means(adapters, wordings, calibrate=settings.calibration, blends=blends)
    policy, admission = policy_from(settings), admission_from(settings, urgent_first=engine.urgent_first)
    named = [*adapters.ids, *adapters.names, *blends.ids, *blends.names]
    known = Known(models=list(engine.models()), adapters=named)
    shelf = Shelf.read(settings.policy, defaults_from(settings), known) if settings.policy else None
    tracing = start_tracing(settings)
    rack = Rack(engine, min(engine.blend_room, settings.blend_slots), settings.blend_seconds) if blends.blends else None
    runtime = Runtime(engine, means, settings, policy, shelf, rack=rack, admission=admission, tracing=tracing)
    if scorers is None:
        return runtime
    file = read_scorers(scorers)
    panel = load_panel(file, engine)
    track = Track(panel, follows_load=settings.follow_load, room=settings.rerank_room)
    selection = Selection(
        scorers=panel.addresses,
        candidates=settings.candidates,
        least=settings.least_candidates,
        schedule=schedule_of(file),
        choose_after=settings.choose_after,
        calibrate=settings.calibrate_candidates,
    )
    return replace(runtime, means=replace(means, selection=selection), track=track)


def check_callers(settings: Settings) -> None:
    """Refuses a policy file that does not fit, and a server that anyone could reach without one, before all else.

    Raises:
        CannotStart: the message says what does not fit.
    """
    if settings.policy is not None:
        read_policy(settings.policy)
    check_host(settings.host, settings)


def check_host(host: str | None, settings: Settings) -> None:
    """Raises CannotStart for a server that listens beyond this machine, has no policy, and was not told that it may."""
    if settings.policy is None and not settings.allow_anonymous and not _is_loopback(host):
        raise CannotStart(
            f"host is {host or 'every address'}, beyond this machine, and there is no policy file: whoever reaches the "
            "server could set every dial. Give --policy FILE, or say --allow-anonymous, or listen on 127.0.0.1"
        )


def _is_loopback(host: str | None) -> bool:
    """No host stands for every address."""
    try:
        return host == "localhost" or (bool(host) and ipaddress.ip_address(host or "").is_loopback)
    except ValueError:
        return False


def check_scorers(settings: Settings) -> None:
    """Refuses a scorers' file that does not fit within a second, before an engine is loaded; nothing is loaded here.

    Raises:
        ScorersError: the message says what does not fit.
    """
    if (path := scorers_file(settings)) is None:
        return
    file = read_scorers(path)
    schedule_of(file)
    judged = {dial for spec in file.scorers for dial in spec.judged}
    if missing := [dial for dial in DIAL_NAMES if dial not in judged]:
        raise ScorersError(
            f"the scorers' file {path} has no scorer that judges {missing[0]}; reranking needs one for each dial"
        )


def schedule_of(file: ScorersFile) -> Schedule:
    """The checks of a scorers' file.

    Raises:
        ScorersError: they are none.
    """
    if isinstance(file.early_stop, str):
        return SCHEDULES[file.early_stop]
    try:
        return Schedule(tuple(Check(check.at, check.keep) for check in file.early_stop))
    except ValueError as exc:
        raise ScorersError(f"early_stop: {exc}") from exc


def served_name(settings: Settings) -> str:
    return settings.served_model_name or settings.model or demo.DEMO_NAME


def scorers_file(settings: Settings) -> Path | None:
    """The file that is named; the demo's own for the demo model, unless another one is."""
    if settings.scorers is not None or settings.model is not None or engine_for(settings) == "remote":
        return settings.scorers
    return demo.scorers_file()


def adapter_folders(settings: Settings) -> list[Path]:
    """The folders that are named; for the demo model, the bundled adapter unless others are named."""
    if settings.adapters or settings.model is not None:
        return settings.adapters
    return [demo.adapter_folder()]
