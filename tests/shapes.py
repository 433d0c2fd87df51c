"""Makes `transforms/shapes.json`, the shapes that alertbeam knows from the start.

    python -m tests.shapes

Learnt from the examples in this folder and, for the names and types of their fields alone, from
real events beside the repository, where they are. An example counts a hundred times, so that its
fields are known at once; only what every record of a shape has is then missed.
"""

from __future__ import annotations

from pathlib import Path

from schemas.batch import Batch, Origin, Record
from schemas.drift import LEARNT, Shapes, changes, dump, merge
from tests.examples import EXAMPLES, encoded
from transforms.parse import parse_batch

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "transforms/shapes.json"


def learnt() -> Shapes:
    seen: Shapes = {}
    bodies = [encoded(example.record()) for example in EXAMPLES.values()]
    bodies += [path.read_bytes() for path in sorted((ROOT.parent / "shared/samples").glob("*/*"))]
    records = [Record(number, 0, 1, body) for number, body in enumerate(bodies)]
    parsed, _ = parse_batch(Batch(Origin("file", "0"), 0, len(bodies), None, records))
    for alert in parsed.alerts:
        if alert.kind != "unknown":
            changes({}, seen, alert.kind, alert.raw)
    return merge(*[seen] * LEARNT)


if __name__ == "__main__":
    SHIPPED.write_bytes(dump(learnt()) + b"\n")
    print(f"{SHIPPED.relative_to(ROOT)}: {len(learnt())} shapes")
