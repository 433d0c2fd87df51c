from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.masking import mask

KEY = "q8Zt1mX0c9V2b7N4a5S6d3F8g1H2j0K="
TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYWxsb3J5In0.c2lnbmF0dXJlLW9mLWl0"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (
            f"https://a.blob.example/c?sv=2024&sig={KEY[:-1]}%3D&se=2026",
            "https://a.blob.example/c?sv=2024&sig=[masked]&se=2026",
        ),
        (f"?sig={KEY}", "?sig=[masked]"),
        (f"to?url=https%3A%2F%2Fa%3Fsig%3D{KEY[:-1]}", "to?url=https%3A%2F%2Fa%3Fsig%3D[masked]"),
        (
            f"AccountName=shop;AccountKey={KEY};EndpointSuffix=x",
            "AccountName=shop;AccountKey=[masked];EndpointSuffix=x",
        ),
        (
            f"SharedAccessKeyName=k;SharedAccessKey={KEY}",
            "SharedAccessKeyName=k;SharedAccessKey=[masked]",
        ),
        ("Server=db;User=sa;Password=hunter2;x", "Server=db;User=sa;Password=[masked];x"),
        ("psql password='my word' -h", "psql password=[masked]' -h"),
        ('run --password="my word" -v', 'run --password=[masked]" -v'),
        ("MYSQL_PWD=hunter2 mysqldump", "MYSQL_PWD=[masked] mysqldump"),
        ("client_secret=abc~8Q", "client_secret=[masked]"),
        (f"curl -H 'Authorization: Bearer {TOKEN}'", "curl -H 'Authorization: Bearer [masked]'"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----[masked]",
        ),
    ],
)
def test_a_secret_is_masked_and_what_is_around_it_stays(text: str, masked: str) -> None:
    for escaped in (json.dumps({"a": text}), json.dumps({"a": text}).replace("&", r"\u0026")):
        found, count = mask(escaped.encode())
        assert json.loads(found) == {"a": masked}
        assert count == 1
        assert mask(found) == (found, 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "config=abcdefghijklmnopqrstuvwxyz",
        "sig=REDACTED",
        "PWD=/root ; USER=root ; COMMAND=/bin/ls",
        "key=short",
        "a == b, design=modern-and-minimal-ism",
        "eyJ is how a token begins",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG",
        "passwords=none",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    raw = json.dumps({"a": text}).encode()
    assert mask(raw) == (raw, 0)


def test_every_secret_counts() -> None:
    raw = json.dumps({"a": f"?sig={KEY}", "b": [f"?sig={KEY}", "pwd=x"] * 300}).encode()
    found, count = mask(raw)
    assert count == 601
    assert KEY.encode() not in found


hidden = st.sampled_from(
    [f"&sig={KEY}", "Password=hunter2", TOKEN, "AccountKey=" + KEY, "=", "pwd=", "\\", '"']
)


@given(st.lists(st.one_of(hidden, st.text(max_size=10)), max_size=12).map("".join))
def test_json_stays_json(text: str) -> None:
    raw = json.dumps({"a": text, "b": 1}).encode()
    found, count = mask(raw)
    assert list(json.loads(found)) == ["a", "b"]
    assert (found == raw) == (count == 0)


@pytest.mark.parametrize(
    "raw", [b"sig=" * 250_000, b"=" * 1_000_000, b"password=" * 110_000, b"eyJa." * 200_000,
            b"-----BEGIN PRIVATE KEY-----" * 38_000, b"a_" * 500_000 + b"pwd="]
)  # fmt: skip
def test_a_hostile_megabyte_takes_no_time(raw: bytes) -> None:
    begun = time.perf_counter()
    mask(raw)
    assert time.perf_counter() - begun < 5
