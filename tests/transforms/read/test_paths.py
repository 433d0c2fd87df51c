from __future__ import annotations

import datetime
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letter import DeadLetter
from transforms.dead_letters import write_dead_letters
from transforms.owed import put_aside
from transforms.read.paths import CAPTURE, Placed, Template, placed
from transforms.state_store import StateStore

MINUTE = 60_000
WINDOW = 15 * MINUTE


def ms(*at: int) -> int:
    return int(datetime.datetime(*at, tzinfo=datetime.timezone.utc).timestamp() * 1000)  # type: ignore[misc, arg-type]


THEN = ms(2026, 3, 4, 5, 6, 7)
CAPTURED = Placed(THEN, WINDOW, "0", "space/hub")
WORKSPACE = (
    "WorkspaceResourceId=/subscriptions/0a/resourcegroups/rg/providers/"
    "microsoft.operationalinsights/workspaces/soc"
)


@pytest.mark.parametrize(
    "path",
    [
        "space/hub/0/2026/03/04/05/06/07.avro",
        "/mnt/2025/01/01/old/space/hub/0/2026/03/04/05/06/07.avro",
        "azfs://account/container/space/hub/0/2026/03/04/05/06/07.avro",
        "/x/space/hub/0/2026/03/04/05/06/07",
        "/x/space/hub/0/2026/03/04/05/06/07.avro.gz",
        "/x/space/hub/0/2026/03/04/05/06/07.parquet",
    ],
)
def test_captures_default_path_is_told_at_the_end_of_any(path):
    assert placed(path) == CAPTURED


def test_the_example_that_microsoft_gives_lies_in_its_window():
    """Its events were enqueued from 19:12:14 to 19:12:44, and it was made at 19:12:46."""
    found = placed("windturbinecapture/tfdatamigratens/hubdatamigration/1/2017/08/31/19/11/45.avro")
    assert found is not None and found.begin_ms is not None
    assert found.begin_ms < ms(2017, 8, 31, 19, 12, 14)
    assert found.begin_ms + found.length_ms > ms(2017, 8, 31, 19, 12, 46)


@pytest.mark.parametrize(
    "path",
    [
        "/exports/2026/03/04/05/06/07.avro",
        "2026/03/04/05/06/07.avro",
        "/a/b/c/2026/03/04/05/06/07.json",
    ],
)
def test_folders_of_time_alone_say_no_partition(path):
    assert placed(path) == Placed(THEN, WINDOW)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "alerts.json",
        "/x/space/hub/0/2026/13/04/05/06/07.avro",
        "/x/space/hub/0/2026/02/30/05/06/07.avro",
        "/x/space/hub/0/2026/03/04/24/06/07.avro",
        "/x/space/hub/0/2026/03/04/05/60/07.avro",
        "/x/space/hub/0/3026/03/04/05/06/07.avro",
        "/x/2026/03/04/05/06/07.avro/alerts.json",
        f"{WORKSPACE}/y=2026/m=13/d=04/h=05/m=10/PT05M.json",
        f"{WORKSPACE}/day=2026/m=03/d=04/h=05/m=10/PT05M.json",
        "/x/2026/03/04/05/06/07-1.json",
    ],
)
def test_what_is_no_time_is_not_taken_for_one(path):
    assert placed(path) is None


@pytest.mark.parametrize(
    "name", ["PT05M.json", "PT05M_1.json", "PT05M_12.json", "PT5M.json", "PT05M.json.gz"]
)
def test_data_exports_folders_are_of_five_minutes_of_the_events_own_time(name):
    path = f"azfs://a/am-securityalert/{WORKSPACE}/y=2026/m=03/d=04/h=05/m=10/{name}"
    assert placed(path) == Placed(ms(2026, 3, 4, 5, 10), 5 * MINUTE, exact=True)


@pytest.mark.parametrize(
    "path",
    [
        "insights-activity-logs/resourceId=/SUBSCRIPTIONS/0A/y=2026/m=03/d=04/h=05/m=00/PT1H.json",
        f"{WORKSPACE}/y=2026/m=03/d=04/h=05/m=00/PT1H_3.json",
        "resourceId=/S/y=2026/m=03/d=04/h=05/m=00/macAddress=002248A3/PT1H.json",
        "y=2026/m=03/d=04/h=05/of-our-own.json",
    ],
)
def test_hourly_folders_are_of_when_events_were_received(path):
    assert placed(path) == Placed(ms(2026, 3, 4, 5), 60 * MINUTE)


def test_our_own_files_are_told_as_we_write_them(tmp_path):
    store = StateStore(str(tmp_path))
    source = "space.servicebus.windows.net/h%ub/$Default"
    letter = DeadLetter(source, "p/1", 7, 0, THEN, "parse", "why", b"{}")
    write_dead_letters(store, [letter])
    put_aside(store, source, "3", 10, 20, b"")
    dead, aside = [*store.list("dead"), *store.list("aside")]
    hub = "space.servicebus.windows.net/h%ub"
    assert placed(f"/state/{dead}") == Placed(THEN, MINUTE, "p/1", hub)
    assert placed(f"/state/{aside}") == Placed(None, 0, "3", hub)


# -------------------------------------------------------------------------------- templates

CUSTOM = (
    "{Namespace}_{EventHub}/date={Year}-{Month}-{Day}/{PartitionId}-{Hour}{Minute}{Second}.avro"
)


def test_a_template_may_have_its_tokens_in_any_order_with_text_around():
    template = Template(CUSTOM)
    found = placed("/x/space_hub/date=2026-03-04/0-050607.avro", template)
    assert found == CAPTURED
    assert placed("/x/space_hub/date=2026-03-04/0-050607.csv", template) is None
    assert placed("/x/space_hub/date=2026-03-99/0-050607.avro", template) is None


def test_what_is_not_of_the_template_is_told_by_what_is_known():
    assert placed("/x/space/hub/0/2026/03/04/05/06/07.avro", Template(CUSTOM)) == CAPTURED


def test_a_templates_text_is_taken_literally():
    template = Template("a.b+(c)/{Year}/{Month}/{Day}")
    assert template.placed("/q/a.b+(c)/2026/03/04.avro") is not None
    assert template.placed("/q/axb+(c)/2026/03/04.avro") is None


def test_a_token_that_comes_twice_must_say_the_same():
    template = Template("{Year}/{Year}-{Month}-{Day}")
    assert template.placed("2026/2026-03-04.avro") is not None
    assert template.placed("2025/2026-03-04.avro") is None


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("{Year}/{Month}/{Day}", 24 * 60 * MINUTE),
        ("{Year}/{Month}/{Day}/{Hour}", 60 * MINUTE),
        ("{Year}/{Month}/{Day}/{Hour}/{Minute}", MINUTE),
    ],
)
def test_what_a_template_does_not_say_makes_the_span_longer(text, length):
    path = "/".join(["2026", "03", "04", "05", "06"][: text.count("{")])
    found = Template(text).placed(path)
    assert found is not None and found.length_ms == length + WINDOW


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{Year}/{month}/{Day}", "the template has {month}, which is none of {Namespace}, "),
        ("{Year}/{}/{Day}", "the template has {}, which is none of "),
        ("{Namespace}/{Hour}", "the template lacks {Year}: no time can be told by it"),
        ("", "the template lacks {Year}"),
    ],
)
def test_a_template_that_cannot_be_used_is_told(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Template(text)


names = st.text(st.sampled_from("abcz09.-"), min_size=1, max_size=8)
times = st.datetimes(datetime.datetime(1980, 1, 1), datetime.datetime(2099, 12, 31))


@given(
    st.permutations(re.findall(r"\w+", CAPTURE)),
    st.lists(st.sampled_from(["/", "_", "/x=", "~"]), min_size=9, max_size=9), names, names,
    st.integers(0, 1023), times,
)  # fmt: skip
def test_any_template_tells_what_it_made(tokens, between, namespace, hub, partition, at):
    values = {
        "Namespace": namespace, "EventHub": hub, "PartitionId": str(partition),
        "Year": f"{at:%Y}", "Month": f"{at:%m}", "Day": f"{at:%d}", "Hour": f"{at:%H}",
        "Minute": f"{at:%M}", "Second": f"{at:%S}",
    }  # fmt: skip
    text = "".join(f"{{{token}}}{mark}" for token, mark in zip(tokens, between, strict=True))
    text += "end"
    path = "/before/it/" + text.format(**values) + ".avro"
    begin = int(at.replace(microsecond=0, tzinfo=datetime.timezone.utc).timestamp() * 1000)
    found = Template(text).placed(path)
    assert found == Placed(begin, WINDOW, str(partition), f"{namespace}/{hub}")


def test_the_default_is_a_template_like_any():
    path = "/x/space/hub/0/2026/03/04/05/06/07.avro"
    assert Template(CAPTURE).placed(path) == placed(path)


@given(st.text(st.sampled_from("/=ymdh0123456789PT.jsonaviro-"), max_size=80))
def test_no_path_is_too_odd(path):
    placed(path)
    Template(CUSTOM).placed(path)
