"""Real events, mutated: none may crash the parse, or take long, or be lost.

    python -m tests.fuzz [EVENTS] [SEED]

Mutates the examples and, where they are, the real events beside the repository: bytes flipped,
cut, doubled and spliced, values replaced by others of any type. Each must end as alerts or dead
letters, in less than 50 ms of processor time, and memory must not grow. One in 16 is also asked
for all that it mentions, and written in every format.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from schemas.alert import Alert
from schemas.batch import Batch, Origin, Record
from schemas.formats import FORMATS
from schemas.kinds import details
from schemas.wrappers import unwrap
from tests.examples import EXAMPLES, encoded
from tests.fixtures import hostile
from transforms.parse import parse_batch

SLOW = 0.05
"""Seconds of processor time that one event may take."""

_ORIGIN = Origin("fuzz", "0")
_ONE_IN = 16
_LONGEST = 64 * 1024
_WORDS: list[bytes] = [
    b'"', b"'", b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"-1e999", b"1" * 400,
    b"\x00", b"\xff", b"\xed\xa0\x80", rb"\ud800", b"\n", b"\xef\xbb\xbf", b'{"records":[', b"]}",
    b"NaN", b'"":', b"sig=abcdefghijklmnopqrstuvwxyz", b'"$ref":"1"', b'"$id":"1"',
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, 0, -1, 1e308, 2**63, "", "x" * 5000, [], {}, [[]], [None], {"$ref": "1"}, {"": ""},
    "2026-99-99T99:99:99Z", "9999-12-31T23:59:59.9999999Z", "[]", "{}", "{'a': \"b'}",
    "/subscriptions/",
    *hostile(),
]  # fmt: skip


@dataclasses.dataclass
class Result:
    """What a run saw. grown: bytes of resident memory, from its first tenth on."""

    events: int = 0
    alerts: int = 0
    dead: int = 0
    kinds: Counter[str] = dataclasses.field(default_factory=Counter)
    slowest: float = 0.0
    slowest_event: bytes = b""
    grown: int = 0
    seconds: float = 0.0


def corpus() -> list[bytes]:
    """What is mutated: records one by one, and a few files whole, for their wrappers."""
    found = [encoded(example.record()) for example in EXAMPLES.values()]
    for path in sorted((Path(__file__).parents[2] / "shared/samples").glob("*/*")):
        body = path.read_bytes()
        if len(body) <= _LONGEST:
            found.append(body)
        pieces = unwrap(body)[:40]
        found += [piece for piece in pieces if isinstance(piece, bytes) and len(piece) <= _LONGEST]
    return found


def mutated(random_: random.Random, bodies: list[bytes]) -> bytes:
    body = random_.choice(bodies)
    for _ in range(random_.choice((1, 1, 2, 4))):
        body = _mutated(random_, body, bodies)
    return body[: 2 * _LONGEST]


def _mutated(random_: random.Random, body: bytes, bodies: list[bytes]) -> bytes:
    at = random_.randrange(len(body) + 1)
    to = min(len(body), at + random_.choice((1, 2, 8, 64, 1024)))
    match random_.randrange(8):
        case 0:
            return body[:at] + bytes((random_.randrange(256),)) + body[at + 1 :]
        case 1:
            return body[:at] + body[to:]
        case 2:
            return body[:to] + body[at:]
        case 3:
            return body[:at]
        case 4:
            return body[:at] + random_.choice(_WORDS) * random_.choice((1, 1, 1, 3, 40)) + body[at:]
        case 5:
            other = random_.choice(bodies)
            return body[:at] + other[random_.randrange(len(other)) :]
        case _:
            return _other_value(random_, body)


def _other_value(random_: random.Random, body: bytes) -> bytes:
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return body
    place = record
    while isinstance(place, dict | list) and place:
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = random_.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and random_.random() < 0.7:
            place = place[key]
            continue
        if isinstance(place, dict) and random_.random() < 0.2:
            place[random_.choice((key.upper(), key.lower(), key + "2"))] = place.pop(key)
        else:
            place[key] = random_.choice(_VALUES)
        break
    return json.dumps(record, separators=(",", ":")).encode()


def fuzz(events: int, seed: int, seconds: float = 0) -> Result:
    """Mutates so many events, or for so many seconds. Raises AssertionError at the first that
    is lost, and whatever else the parse should never raise."""
    random_ = random.Random(seed)
    bodies = corpus()
    found = Result()
    began = time.monotonic()
    settled = 0
    for number in range(events):
        if seconds and time.monotonic() - began > seconds:
            break
        if number == events // 10 or (
            seconds and not settled and time.monotonic() - began > seconds / 3
        ):
            settled = _resident()
        body = mutated(random_, bodies)
        took = _timed(body, found)
        if took > SLOW:
            took = min(took, *(_timed(body, Result()) for _ in range(3)))  # it may have been us
        if took > found.slowest:
            found.slowest, found.slowest_event = took, body
        found.events += 1
    found.seconds = time.monotonic() - began
    found.grown = _resident() - settled
    return found


def _timed(body: bytes, found: Result) -> float:
    batch = Batch(_ORIGIN, 0, 0, None, [Record(found.events, 0, 1, body)])
    began = time.process_time()
    parsed, dead = parse_batch(batch)
    took = time.process_time() - began
    assert parsed.size == len(parsed.alerts) + len(dead) > 0, body
    assert not [letter for letter in dead if "could not be understood" in letter.reason], body
    found.alerts += len(parsed.alerts)
    found.dead += len(dead)
    found.kinds.update(alert.kind for alert in parsed.alerts)
    if not found.events % _ONE_IN:
        for alert in parsed.alerts[:4]:
            _said(alert, body)
    return took


def _said(alert: Alert, body: bytes) -> None:
    details(alert)
    for form in FORMATS.values():
        said = form.say(alert)
        assert form.max_bytes is None or len(said) <= form.max_bytes, (form.name, body)
        if form.media_type == "application/json":
            # Python's own limit on the digits of integers is none of JSON's.
            assert isinstance(json.loads(said, parse_int=str), dict), (form.name, body)


def _resident() -> int:
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    result = fuzz(count, seed)
    print(f"{result.events:,} events in {result.seconds:.0f} s (seed {seed})")
    print(f"{result.alerts:,} alerts, {result.dead:,} dead letters")
    print("kinds: " + ", ".join(f"{n:,} {kind}" for kind, n in result.kinds.most_common()))
    print(f"slowest: {result.slowest * 1000:.1f} ms; grown by {result.grown / 2**20:.1f} MiB")
    sys.exit(result.slowest > SLOW or result.grown > 32 * 2**20)
