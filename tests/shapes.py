"""Makes `transforms/shapes.json`, the shapes that alertbeam knows from the start.

    python -m tests.shapes

Learnt from the examples in this folder, the demo's events and, for the names and types of their
fields alone, real events beside the repository, where they are.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.local.events import varied
from schemas.batch import Batch, Origin, Record
from schemas.drift import Shapes, changes, dump
from schemas.kinds import unknown
from tests.examples import EXAMPLES, encoded
from transforms.parse import parse_batch

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "transforms/shapes.json"
SAMPLES = ROOT.parent / "shared/samples"


def given() -> Shapes:
    bodies = [encoded(example.record()) for example in EXAMPLES.values()]
    bodies += [made.body for made in varied(500)]
    bodies += [path.read_bytes() for path in sorted(SAMPLES.glob("*/*"))]
    records = [Record(number, 0, 1, body) for number, body in enumerate(bodies)]
    parsed, _ = parse_batch(Batch(Origin("file", "0"), 0, len(bodies), None, records))
    seen: Shapes = {}
    for alert in parsed.alerts:
        if alert.kind != unknown.NAME:
            changes({}, seen, alert.kind, alert.raw)
    for shape in seen.values():
        shape.given, shape.records = True, 0
        for field in shape.fields.values():
            field.records = 0
    return seen


if __name__ == "__main__":
    # A shape a line, so that a change can be read.
    lines = [dump({name: shape})[1:-1] for name, shape in sorted(given().items())]
    SHIPPED.write_bytes(b"{\n" + b",\n".join(lines) + b"\n}\n")
    print(f"{SHIPPED.relative_to(ROOT)}: {len(given())} shapes")
