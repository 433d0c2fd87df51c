from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import SEVERITIES, Alert, Subscription
from schemas.formats.cef import cef
from schemas.kinds import understand
from tests.fixtures import RESOURCE, SUBSCRIPTION, defender_alert, encoded, hostile

KNOWN = Subscription(SUBSCRIPTION, "Shop", "ann@example.com", "production", "Retail")


def alert(**overrides: object) -> Alert:
    made = understand(encoded(defender_alert()))
    made.subscription = KNOWN
    return msgspec.structs.replace(made, **overrides)


def unescape(text: str, allowed: dict[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        assert match[1] in allowed, f"escape {match[0]!r}"
        return allowed[match[1]]

    return re.sub(r"\\(.?)", one, text, flags=re.DOTALL)


def parse(line: bytes) -> tuple[list[str], dict[str, str]]:
    """A strict reading of one line of CEF: the seven header fields and the extension."""
    text = line.decode()
    assert len(text.splitlines()) == 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", text)
    parts = re.split(r"(?<!\\)((?:\\\\)*)\|", text, maxsplit=7)
    assert len(parts) == 15, "seven pipes"
    header = [a + b for a, b in zip(parts[:14:2], parts[1:14:2], strict=True)]
    assert header[0] == "CEF:0"
    fields: dict[str, str] = {}
    # A key begins the extension or follows a blank; its = is the only one that is not escaped.
    marks = list(re.finditer(r"(?:^| )([A-Za-z0-9]+)=", parts[14]))
    assert parts[14].count("=") - len(re.findall(r"\\=", parts[14])) == len(marks)
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        end = following.start() if following else len(parts[14])
        assert mark[1] not in fields
        fields[mark[1]] = unescape(
            parts[14][mark.end() : end], {"\\": "\\", "=": "=", "n": "\n", "r": "\r"}
        )
    return [unescape(field, {"\\": "\\", "|": "|"}) for field in header], fields


def test_the_whole_line() -> None:
    header, fields = parse(cef(alert()))
    assert header == [
        *("CEF:0", "Microsoft", "Microsoft Defender for Cloud", "1.0"),
        *("VM_SuspiciousDownload", "Suspicious download by a system account", "8"),
    ]
    record = defender_alert()
    assert fields == {
        "externalId": alert().event_id,
        "rt": "1772619194987",
        "start": "1772619072123",
        "end": "1772619120500",
        "cat": "Persistence, CredentialAccess",
        "dhost": "shop-vm-1",
        "msg": record["Description"],
        "request": record["AlertUri"],
        "cs1": RESOURCE,
        "cs1Label": "AzureResourceId",
        "cs2": record["SystemAlertId"],
        "cs2Label": "AlertId",
        "cs3": "Shop",
        "cs3Label": "SubscriptionName",
        "cs4": "ann@example.com",
        "cs4Label": "SubscriptionOwner",
        "cs5": "production",
        "cs5Label": "SubscriptionEnvironment",
        "cs6": SUBSCRIPTION,
        "cs6Label": "SubscriptionId",
        "flexString2": "New",
        "flexString2Label": "Status",
    }


@pytest.mark.parametrize(
    ("severity", "number"), zip(SEVERITIES, ["3", "1", "3", "6", "8", "10"], strict=True)
)
def test_severity(severity: str, number: str) -> None:
    assert parse(cef(alert(severity=severity)))[0][6] == number


@pytest.mark.parametrize(
    ("resource", "fields"),
    [
        ("10.0.0.7", {"dst": "10.0.0.7"}),
        ("2001:db8::7", {"c6a3": "2001:db8::7", "c6a3Label": "Destination IPv6 Address"}),
        ("10.0.0.7.example", {"dhost": "10.0.0.7.example"}),
        ("", {}),
    ],
)
def test_resource(resource: str, fields: dict[str, str]) -> None:
    found = parse(cef(alert(resource=resource)))[1]
    places = ("dst", "c6a3", "c6a3Label", "dhost")
    assert {name: found[name] for name in places if name in found} == fields


def test_the_least_that_an_alert_can_be() -> None:
    header, fields = parse(cef(Alert(kind="unknown", key=bytes(16), entity="e")))
    assert header[1:] == ["Microsoft", "unknown", "1.0", "unknown", "unknown", "3"]
    assert fields == {"externalId": "0" * 32, "rt": "0", "cs2": "e", "cs2Label": "AlertId"}


@pytest.mark.parametrize("text", hostile())
def test_text_stays_text(text: str) -> None:
    """Whatever it says, the line has the same fields and the same header."""
    fields = ("title", "description", "resource", "entity", "link", "alert_type", "product")
    evil = alert(
        **dict.fromkeys((*fields, "vendor", "subscription_id", "status_original"), text),
        tactics=(text,),
        techniques=(text,),
        resource_ids=(text,),
        subscription=Subscription(text, text, text, text),
    )
    header, found = parse(cef(evil))
    assert header[6] == "8"
    assert set(found) == set(parse(cef(alert(techniques=("T1",))))[1])
    kept = [c for c in text if c.isprintable()]
    assert [c for c in found["msg"] if c.isprintable() and c != " "] == [
        c for c in kept if c != " "
    ]


any_text = st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from("\\|=\n\r "))


@given(any_text, any_text, any_text)
def test_any_text_reads_back(title: str, description: str, name: str) -> None:
    made = alert(title=title, description=description, subscription=Subscription("s", name))
    header, fields = parse(cef(made))
    plain = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*")
    if plain.fullmatch(title) and title.strip():
        assert header[5] == title[:512].strip()
    if plain.fullmatch(description.replace("\n", "").replace("\r", "")):
        assert fields.get("msg", "") == description[:1023]
    if plain.fullmatch(name):
        assert fields.get("cs3", "") == name


def test_lone_surrogates_cannot_break_the_line() -> None:
    header, fields = parse(cef(alert(title="a\ud800b", description="\udfff=")))
    assert header[5] == "a?b"
    assert fields["msg"] == "?="


def test_values_keep_the_dictionary_lengths() -> None:
    long = "x" * 5000
    header, fields = parse(
        cef(
            alert(title=long, product=long, description=long, link=long, resource=long),
            max_bytes=100_000,
        )
    )
    assert (len(header[2]), len(header[5])) == (63, 512)
    assert {len(fields[name]) for name in ("msg", "request", "dhost")} == {1023}


def test_shortening_drops_the_optional_before_it_cuts() -> None:
    whole = cef(alert())
    order = ["flexString2", "request", "end", "start", "cs5", "cs4", "cs3", "cs6"]
    order += ["cs1", "dhost", "cat", "cs2"]
    before = set(parse(whole)[1])
    for size in range(len(whole), 250, -1):
        header, fields = parse(line := cef(alert(), max_bytes=size))
        assert len(line) <= size
        assert header == parse(whole)[0]
        assert set(fields) <= before
        before = set(fields)
        gone = [name not in fields for name in order]
        assert gone == sorted(gone, reverse=True), "the least important first"
        if fields["msg"] != defender_alert()["Description"]:
            assert all(gone)


@given(
    st.text(st.sampled_from("\\=|\n\ra\u00e9\u4e2d\U0001f600"), max_size=300), st.integers(200, 900)
)
def test_a_cut_halves_neither_escape_nor_code_point(text: str, size: int) -> None:
    made = alert(description=text, title="t")
    _, fields = parse(line := cef(made, max_bytes=size))
    assert len(line) <= size
    assert text.startswith(fields.get("msg", ""))


def test_too_little_room_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"CEF needs \d+ bytes for this alert, not 50"):
        cef(alert(), max_bytes=50)
