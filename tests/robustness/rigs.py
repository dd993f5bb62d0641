"""A server with everything that a request can reach: adapters, a calibration, a blend, scorers, and the fake engine."""

from pathlib import Path
from typing import Any, Final

from rheostat_server.adapters import Adapter, AdapterStore
from rheostat_server.blending.rack import Rack
from rheostat_server.blending.store import Blend, BlendStore
from rheostat_server.contract.blend import BlendManifest
from rheostat_server.contract.manifest import Manifest
from rheostat_server.contract.wordings import default_wordings
from rheostat_server.engines.fake import FakeEngine
from rheostat_server.engines.plain_lora import PlainLora
from rheostat_server.modes.reranking import HALVING
from rheostat_server.plan import Means, Selection
from rheostat_server.reranking.track import Track
from rheostat_server.runtime import Runtime
from rheostat_server.scorers.panel import Member, Panel
from rheostat_server.settings import Settings
from tests.reranking.rigs import TalkativeScorer
from tests.server.recording import DIGEST

SCORES: Final = {0.0: 0.1, 0.5: 0.5, 1.0: 0.9}
"""Of the calibrated adapter, by control value."""
CURVE: Final[dict[str, Any]] = {
    "points": [{"control": control, "score": score, "low": score, "high": score} for control, score in SCORES.items()],
    "judge": "talkative",
    "prompts": 100,
}


def manifest(name: str, *, calibrated: bool) -> Manifest:
    return Manifest.model_validate(
        {
            "name": name,
            "base_model": {"name": "demo", "digest": DIGEST},
            "dials": {"safety": {"levels": [0, 0.5, 1]}, "helpfulness": {"levels": [0, 1]}},
            "control_text": {"template": "[helpful={helpfulness:.2f}][harmless={safety:.2f}]"},
            "training": {"method": "none", "data_digests": {}},
            "calibration": {"adapter": {"safety": CURVE, "helpfulness": CURVE}} if calibrated else None,
            "licence": "Apache-2.0",
            "weights_digest": DIGEST,
        }
    )


PLAIN, CALIBRATED = manifest("plain", calibrated=False), manifest("calibrated", calibrated=True)
ADAPTERS: Final = AdapterStore(tuple(Adapter(each.id, Path(each.name), each) for each in (PLAIN, CALIBRATED)))


WEIGHTS: Final[dict[str, Any]] = {
    "safe": {"dial": "safety", "points": [[0, 0.5], [1, 1]]},
    "help": {"dial": "helpfulness", "points": [[0, 0], [1, 1]]},
}
BLENDED: Final = BlendManifest.model_validate(
    {
        "name": "blended",
        "base_model": {"name": "demo", "digest": DIGEST},
        "components": [
            {"name": name, "folder": name, "weights_digest": DIGEST, "weight": weight}
            for name, weight in WEIGHTS.items()
        ],
        "training": {"method": "none", "data_digests": {}},
        "licence": "Apache-2.0",
    }
)
PARTS: Final = {name: (Path(name), PlainLora({"layer": 1}, {"layer": 1.0}, {"layer": (2, 2)})) for name in WEIGHTS}
BLENDS: Final = BlendStore((Blend("blended@0123", BLENDED, PARTS),))
ROOM: Final = 3


def runtime(settings: Settings | None = None, *, words: int = 4) -> Runtime:
    """Answers have so many words."""
    scorer = TalkativeScorer()
    selection = Selection((scorer.card.name,), candidates=6, schedule=HALVING, choose_after=2)
    engine = FakeEngine(("demo",), ADAPTERS.ids, words=words, blend_room=ROOM)
    return Runtime(
        engine=engine,
        means=Means(ADAPTERS, default_wordings(), selection=selection, blends=BLENDS),
        rack=Rack(engine, ROOM),
        settings=settings or Settings(),
        track=Track(Panel([Member(scorer)]), follows_load=False),
    )
