"""ServiceNow: events of Event Management, incidents, security incidents.

Contracts (ServiceNow's product documentation, releases Xanadu to Brazil): "Pushing events to the
instance using web service API", "Table API", "Batch API", "Import Set API", "Inbound REST API rate
limiting", "Client credentials grant workflow".

An alert is one record through all its updates, found by `message_key` or `correlation_id`. Each
version of it bears a stamp, by which an older one that comes late (owed in an outage, say) is known
and left out:

- Table API: one query tells which records there are and, in `correlation_display`, which version
  each shows; one batch then creates and changes them. A change moves only what the alert moved, so
  that what people did to the record stays.
- Import set: the transform map compares the stamps (docs/sinks/servicenow.md), serially for each
  table, so that several senders make no second record. `insertMultiple` answers with no more than
  the import set's id: each row is a request of its own in the batch, and has its own result.
- Event Management takes events as they come, whatever their time: here what was sent is remembered,
  as long as the process lives.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from schemas.alert import Alert
from schemas.formats._text import cut
from schemas.formats.servicenow import servicenow_event, servicenow_incident
from transforms.delivery.http import (
    HttpConnection,
    HttpSettings,
    Response,
    check_url,
    compress,
    judge,
    retry_after,
)
from transforms.delivery.line import printable
from transforms.delivery.network import Deadline
from transforms.secrets import SecretRef
from transforms.sinks.base import (
    Accepted,
    Connection,
    Limits,
    Refresh,
    RejectItems,
    Retry,
    Shrink,
    Sink,
    Split,
    Stop,
    Verdict,
)

__all__ = ["ServiceNow", "ServiceNowSettings"]

Record = dict[str, Any]

_EVENTS = "/api/global/em/jsonv2"
_BATCH = "/api/now/v1/batch"
_TABLES = "/api/now/v2/table"  # version 1 answers a query that finds nothing with 404
_IMPORT = "/api/now/import"
_TOKEN = "/oauth_token.do"  # noqa: S105 - a path
_JSON = "application/json"

_EVENT_BYTES = 900_000  # glide.rest.max_content_length is 1 MB at least, 10 MB by default
_RECORD_BYTES = 600_000  # in a batch each is base64, with headers of its own
_MOST_ANSWER = 4 * 1024 * 1024  # bytes
_REASON = 300  # characters
_REMEMBERED = 50_000  # entities of which the newest version is known
_UNCLEAR = 2.0  # timeouts more, by then ServiceNow's own limit of 30 s has ended the request
_EARLY = 60.0  # seconds before its end that a token is renewed
_MILLIS = 16**11 - 1
_DISPLAY = 100  # characters of correlation_display

_SHOWN = re.compile(r"([0-9a-f]{22}) ([a-z_]+) ([a-z]+) ([0-9a-f]{32})( |$)")  # a version
_INSERTED = re.compile(r"(\d+) events? (?:was|were) inserted")
_CLOSED = ("resolved", "dismissed")
_NEW, _IN_PROGRESS, _RESOLVED = "1", "2", "6"

# Words of 400 and 403, which each mean several things.
_OF_RECORDS = re.compile("data policy|business rule|error during (insert|update)", re.IGNORECASE)
_OF_SETTINGS = re.compile("invalid table|requested uri does not", re.IGNORECASE)
_TOO_LARGE = re.compile("rejected large rest payload", re.IGNORECASE)
_THERE_ALREADY = re.compile("unique key violation", re.IGNORECASE)
_OUT_OF_TIME = re.compile("maximum execution time", re.IGNORECASE)
_NOT_SERVICENOW = (
    "this is no answer of ServiceNow's REST API: the instance hibernates or is being upgraded, or "
    "the address is another one"
)


def _field(name: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9_]{0,79}", name):
        raise ValueError("a field or table is named by lower-case letters, digits and _")
    return name


Fields = dict[Annotated[str, AfterValidator(_field)], str]


class ServiceNowSettings(HttpSettings):
    """ServiceNow: Event Management, incidents or security incidents."""

    url: str = Field(description="The instance: https://NAME.service-now.com.")
    table: Literal["event", "incident", "sn_si_incident"] = Field(
        description="What an alert becomes. `event`: an event of Event Management, which makes an "
        "alert there and clears it; `incident`: an incident; `sn_si_incident`: a security incident "
        "of Security Incident Response."
    )
    import_table: str = Field(
        "",
        description="The staging table of an import set, with a transform map that coalesces on "
        "`correlation_id`. Without it incidents are written through the Table API.",
    )
    username: str = Field("", description="The user that signs in by a password.")
    password: SecretRef | None = Field(
        None, description="The user's password: env:NAME or file:/path."
    )
    client_id: str = Field(
        "", description="Instead of a user: the OAuth client, for the client credentials grant."
    )
    client_secret: SecretRef | None = Field(
        None, description="The OAuth client's secret: env:NAME or file:/path."
    )
    fields: Fields = Field(
        {},
        description="More fields of each incident that is created, or other values than ours, as "
        "the table stores them: {assignment_group: SYS_ID, caller_id: SYS_ID}.",
    )
    close_fields: Fields = Field(
        {},
        description="More fields of each incident that is resolved, or others than ours: "
        "{close_code: Resolved by caller}.",
    )
    max_records: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Alerts in one request; without it 100 events, or 10 incidents, for each of "
        "which ServiceNow may well take half a second.",
    )
    gzip: bool = Field(
        False,
        description="Compress requests. ServiceNow does not document that it takes them; Event "
        "Management was seen to.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        url = check_url(url, path="")
        if urlsplit(url).path.strip("/"):
            raise ValueError("the URL is that of the instance, without a path")
        return url.rstrip("/")

    @field_validator("import_table")
    @classmethod
    def _check_import_table(cls, name: str) -> str:
        return _field(name) if name else name

    @field_validator("fields", "close_fields")
    @classmethod
    def _check_fields(cls, fields: Fields, info: ValidationInfo) -> Fields:
        ours = {"correlation_id", "correlation_display"}
        ours |= {"state"} if info.field_name == "fields" else set()
        if taken := sorted(ours & set(fields)):
            raise ValueError(f"{taken[0]} is set by alertbeam itself")
        return fields

    @model_validator(mode="after")
    def _check_all(self) -> ServiceNowSettings:
        if bool(self.username) != bool(self.password):
            raise ValueError("`username` and `password` are given together")
        if bool(self.client_id) != bool(self.client_secret):
            raise ValueError("`client_id` and `client_secret` are given together")
        if bool(self.username) == bool(self.client_id):
            raise ValueError("either `username` and `password`, or `client_id` and `client_secret`")
        if ":" in self.username:
            raise ValueError("a user's name has no colon in it")
        if self.table == "event" and self.import_table:
            raise ValueError("events are not imported: `import_table` is for incidents")
        if (self.fields or self.close_fields) and (self.table == "event" or self.import_table):
            raise ValueError(
                "`fields` and `close_fields` are of the Table API; in an import set the transform "
                "map sets them, in Event Management an event rule"
            )
        if self.close_fields and self.table != "incident":
            raise ValueError("only an `incident` is resolved from here")
        return self


class ServiceNow(Sink[ServiceNowSettings]):
    """One table of one instance."""

    kind = "servicenow"
    Settings = ServiceNowSettings
    example: ClassVar = {
        "url": "https://example.service-now.com",
        "table": "incident",
        "username": "alertbeam",
        "password": "env:SERVICENOW_PASSWORD",
    }

    def __init__(self, name: str, settings: ServiceNowSettings) -> None:
        super().__init__(name, settings)
        self._known = _Known()

    @property
    def limits(self) -> Limits:
        most, records = (
            (_EVENT_BYTES, 100) if self.settings.table == "event" else (_RECORD_BYTES, 10)
        )
        return Limits(most, self.settings.max_records or records)

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        """The version's stamp, and the record."""
        return _packed(alert, self._record(alert))

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        record = self._record(alert)
        said = _packed(alert, record)
        if len(said) > most and "additional_info" in record:
            record["additional_info"] = msgspec.json.encode({"event": alert.event_id}).decode()
        longest = "u_description" if self.settings.import_table else "description"
        text, room = record.get(longest, ""), most
        while len(said) > most and room:
            record[longest] = cut(text, room)
            said = _packed(alert, record)
            room //= 2
        return said if len(said) <= most else None

    def connect(self) -> Connection:
        if self.settings.table == "event":
            return _Events(self.settings, self._known)
        if self.settings.import_table:
            return _ImportSet(self.settings, self._known)
        return _Table(self.settings, self._known)

    def probe(self, timeout: float) -> None:
        self._look(timeout)

    def check(self, timeout: float) -> str:
        found = self._look(timeout)
        return (
            f"the credentials are taken; {found}; whether it may be written ServiceNow tells only "
            f"of what it is sent: alertbeam sinks test {self.name}"
        )

    @property
    def target(self) -> str:
        through = f" by {self.settings.import_table}" if self.settings.import_table else ""
        return f"{self.settings.url}, {self.settings.table}{through}"

    def find(self, event_id: str) -> str:
        if self.settings.table == "event":
            return f"em_event.list, Additional information contains {event_id}"
        return f"{self.settings.table}.list, Correlation display contains {event_id}"

    def _record(self, alert: Alert) -> Record:
        settings = self.settings
        if settings.table == "event":
            return _decode(servicenow_event(alert))
        record = _decode(servicenow_incident(alert, table=settings.table))
        told = " ".join((_stamp(alert), alert.status, alert.severity, alert.event_id))  # _SHOWN
        record["correlation_display"] = f"{told} {record['correlation_display']}"[:_DISPLAY].strip()
        if not settings.import_table:
            return record
        if record.get("state") == _NEW:
            del record["state"]  # a new record's anyway; a later version shall not set it back
        return {f"u_{name}": value for name, value in record.items()}

    def _look(self, timeout: float) -> str:
        instance = _Instance(self.settings, self._known)
        try:
            return instance.look(Deadline(timeout))
        except _RefusedError as refused:
            raise ConnectionError(refused.reason) from None
        finally:
            instance.close()


class _Known:
    """What the senders of a sink share: who is being written, and which versions were.

    Not pickled: another process begins anew.
    """

    def __init__(self) -> None:
        self._writing: set[str] = set()
        self._free = threading.Condition()
        self._newest: OrderedDict[str, str] = OrderedDict()  # by entity: a stamp
        self._lost: dict[str, float] = {}  # by entity: until when a request may be carried out

    def __reduce__(self) -> tuple[type[_Known], tuple[()]]:
        return _Known, ()

    @contextlib.contextmanager
    def writing(self, keys: Collection[str], timeout: float) -> Iterator[None]:
        """While another sender writes one of these, wait: both would create it."""
        with self._free:
            if not self._free.wait_for(lambda: self._writing.isdisjoint(keys), timeout):
                raise TimeoutError("another sender is writing the same record")
            self._writing.update(keys)
        try:
            yield
        finally:
            with self._free:
                self._writing.difference_update(keys)
                self._free.notify_all()

    def newest(self, key: str) -> str:
        """The stamp of what was sent; empty where that is not known."""
        return self._newest.get(key, "")

    def lost(self, keys: Collection[str], seconds: float) -> None:
        """A request about these was not answered in time; so long it may still be worked on."""
        now = time.monotonic()
        with self._free:
            self._lost = {key: until for key, until in self._lost.items() if until > now}
            self._lost.update(dict.fromkeys(keys, now + seconds))

    def unclear(self, key: str) -> bool:
        return time.monotonic() < self._lost.get(key, 0.0)

    def sent(self, key: str, stamp: str) -> None:
        with self._free:
            self._newest[key] = max(stamp, self.newest(key))
            self._newest.move_to_end(key)
            while len(self._newest) > _REMEMBERED:
                self._newest.popitem(last=False)


@dataclasses.dataclass(frozen=True)
class _Version:
    """One version of an alert. at: its position in the request."""

    at: int
    stamp: str
    record: Record
    key: str


class _RefusedError(Exception):
    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict, self.reason = verdict, reason


class _Instance(Connection):
    """Asks, and understands the answer."""

    _key: ClassVar[str] = "correlation_id"

    def __init__(self, settings: ServiceNowSettings, known: _Known) -> None:
        self._settings, self._known = settings, known
        self._secrets: list[str] = []
        self._authorization, self._until = "", 0.0  # monotonic seconds
        self._grant = b""
        if settings.password:
            password = settings.password.resolve().reveal()
            pair = base64.b64encode(f"{settings.username}:{password}".encode()).decode()
            self._secrets += [pair, password]
            self._authorization, self._until = f"Basic {pair}", float("inf")
        elif settings.client_secret:
            secret = settings.client_secret.resolve().reveal()
            self._secrets.append(secret)
            self._grant = urlencode(
                {
                    "grant_type": "client_credentials",
                    "client_id": settings.client_id,
                    "client_secret": secret,
                }
            ).encode()
        self._http = HttpConnection(settings.url, settings, {"Accept": _JSON})

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        deadline = Deadline(timeout)
        versions = [self._version(at, payload) for at, payload in enumerate(payloads)]
        try:
            with self._known.writing({it.key for it in versions}, timeout):
                fresh = self._fresh(versions)
                if not fresh:
                    return Accepted(said="a newer version was sent already")
                return self._write(fresh, deadline)
        except _RefusedError as refused:
            return refused.verdict

    def close(self) -> None:
        self._http.close()

    def look(self, deadline: Deadline) -> str:
        """What can be seen of the table. Raises OSError or _RefusedError."""
        settings = self._settings
        name = settings.import_table or (
            "em_event" if settings.table == "event" else settings.table
        )
        path = f"{_TABLES}/{name}?sysparm_limit=1&sysparm_fields=sys_id,correlation_id"
        try:
            rows = self._ask("GET", path, None, deadline).get("result")
        except _RefusedError as refused:
            if name != settings.table and "403" in refused.reason[:8]:
                return f"{name} may not be read, and need not"
            raise
        if not isinstance(rows, list):
            raise ConnectionError(_NOT_SERVICENOW)
        if name == settings.table and rows and "correlation_id" not in rows[0]:
            raise ConnectionError(f"{name} has no correlation_id that these credentials may read")
        return f"{name} can be read"

    def _write(self, versions: Sequence[_Version], deadline: Deadline) -> Verdict:
        raise NotImplementedError

    def _version(self, at: int, payload: bytes) -> _Version:
        stamp, _, said = payload.partition(b" ")
        record = _decode(said)
        return _Version(at, stamp.decode(), record, str(record[self._key]))

    def _fresh(self, versions: Sequence[_Version]) -> list[_Version]:
        """Without those that come after a newer one."""
        newest: dict[str, str] = {}
        fresh = []
        for it in versions:
            if it.stamp >= max(newest.get(it.key, ""), self._known.newest(it.key)):
                newest[it.key] = it.stamp
                fresh.append(it)
        return fresh

    def _ask(self, method: str, path: str, body: Any, deadline: Deadline) -> Record:
        """What is answered. Raises OSError or _RefusedError."""
        headers = {"Authorization": self._authorized(deadline)}
        said = b""
        if body is not None:
            said = msgspec.json.encode(body)
            headers["Content-Type"] = _JSON
            if self._settings.gzip:
                headers["Content-Encoding"] = "gzip"
                said = compress(said)
        return self._answer(method, path, said, headers, deadline)

    def _answer(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], deadline: Deadline
    ) -> Record:
        response = self._http.request(method, path, body, headers, deadline.left(), _MOST_ANSWER)
        answer = _decode(response.body)
        message, detail = _error(answer)
        if response.status >= 300 or message or not answer:
            reason = self._say(response.status, message or response.reason, detail)
            if not answer and response.status < 500:
                reason = f"{reason}: {_NOT_SERVICENOW}"
            raise _RefusedError(_refusal(response, reason, message, detail), reason)
        return answer

    def _authorized(self, deadline: Deadline) -> str:
        """What `Authorization` says; a token is fetched where there is none that still holds."""
        if time.monotonic() >= self._until:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._answer("POST", _TOKEN, self._grant, headers, deadline)
            token, lasts = answer.get("access_token"), answer.get("expires_in")
            if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
                raise ConnectionError(f"{_TOKEN} gives no token")
            self._secrets[1:] = [token]
            self._authorization = f"Bearer {token}"
            seconds = float(lasts) if isinstance(lasts, int | float) else 2 * _EARLY
            self._until = time.monotonic() + max(0.0, seconds - _EARLY)
        return self._authorization

    def _say(self, status: int, message: str, detail: str) -> str:
        said = f"HTTP {status}: " + ": ".join(filter(None, (message, detail)))
        for secret in self._secrets:
            said = said.replace(secret, "***")
        return printable(said, _REASON)


class _Events(_Instance):
    """Event Management. A request is taken or refused as a whole."""

    _key = "message_key"

    def _write(self, versions: Sequence[_Version], deadline: Deadline) -> Verdict:
        answer = self._ask("POST", _EVENTS, {"records": [it.record for it in versions]}, deadline)
        if "result" not in answer:
            return Stop(f"HTTP 200: {_NOT_SERVICENOW}")
        said = str(answer["result"])
        counted = _INSERTED.search(said)
        if counted and int(counted[1]) != len(versions):
            return Split(f"of {len(versions)} events it took {counted[1]}")
        for it in versions:
            self._known.sent(it.key, it.stamp)
        return Accepted(said=printable(f"HTTP 200: {said}", _REASON))


@dataclasses.dataclass(frozen=True)
class _Said:
    """What an item of a batch is answered."""

    status: int
    answer: Record
    reason: str


class _Batches(_Instance):
    """Records that are requests of their own, in a batch."""

    def _write(self, versions: Sequence[_Version], deadline: Deadline) -> Verdict:
        newest = {it.key: it for it in versions}
        try:
            requests, refused, warning = self._requests(newest, deadline)
            said = self._batch(requests, deadline) if requests else {}
        except _RefusedError as error:
            if isinstance(error.verdict, Split):  # each record has an answer of its own
                return Stop(error.reason)
            raise
        for key, it in newest.items():
            verdict: Verdict = refused.get(key, Accepted())
            if key in requests:
                answer = said.get(key)
                verdict = self._judge(requests[key], answer) if answer else Retry("not served")
            if isinstance(verdict, Stop | Refresh):
                return verdict  # what was written is found when it comes again
            if isinstance(verdict, Retry | Split):
                refused[key] = verdict
            else:
                self._known.sent(key, it.stamp)
                warning = getattr(verdict, "warning", "") or warning
        if not refused:
            return Accepted(warning, f"HTTP 200: {len(requests)} written")
        return _sum(versions, newest, refused)

    def _requests(
        self, newest: Mapping[str, _Version], deadline: Deadline
    ) -> tuple[dict[str, Record], dict[str, Retry | Split], str]:
        """By key, what the batch holds and what cannot be sent now; a warning of the rest."""
        raise NotImplementedError

    def _judge(self, request: Record, said: _Said) -> Verdict:
        """What became of a record; Split: it is refused for good."""
        raise NotImplementedError

    def _batch(self, requests: Mapping[str, Record], deadline: Deadline) -> dict[str, _Said]:
        """What was answered, by key; without those that were not served in time."""
        keys = list(requests)
        body = {
            "batch_request_id": "1",
            "rest_requests": [{"id": str(n), **requests[key]} for n, key in enumerate(keys)],
        }
        try:
            answer = self._ask("POST", _BATCH, body, deadline)
        except TimeoutError:
            self._known.lost(keys, _UNCLEAR * self._settings.timeout)
            raise
        served = answer.get("serviced_requests")
        if not isinstance(served, list):
            raise _RefusedError(Stop(_NOT_SERVICENOW), _NOT_SERVICENOW)
        found: dict[str, _Said] = {}
        for item in served:
            number, status = str(item.get("id")), item.get("status_code")
            if not number.isdecimal() or int(number) >= len(keys) or type(status) is not int:
                continue
            inner = _decode(_from_base64(item.get("body")))
            message, detail = _error(inner)
            reason = self._say(status, message or str(item.get("status_text")), detail)
            found[keys[int(number)]] = _Said(status, inner, reason)
        return found


class _Table(_Batches):
    """The Table API: what there is is asked for, then created or changed."""

    def _requests(
        self, newest: Mapping[str, _Version], deadline: Deadline
    ) -> tuple[dict[str, Record], dict[str, Retry | Split], str]:
        settings = self._settings
        rows = self._rows(newest, deadline)
        requests: dict[str, Record] = {}
        later: dict[str, Retry | Split] = {}
        left = 0
        for key, it in newest.items():
            row = rows.get(key)
            plan = _plan(it, row)
            if plan == "create" and self._known.unclear(key):
                later[key] = Retry("the last request may still be under way, and create it")
            elif plan == "create":
                record = it.record | settings.fields
                if it.record.get("state") == _RESOLVED:
                    record |= settings.close_fields
                requests[key] = _item("POST", f"{_TABLES}/{settings.table}", record)
            elif plan == "change":
                assert row is not None
                path = f"{_TABLES}/{settings.table}/{row['sys_id']}"
                requests[key] = _item("PATCH", path, _change(it, row, settings.close_fields))
            elif plan == "leave":
                left += 1
        warning = f"{left} alerts changed whose records were closed by hand" if left else ""
        return requests, later, warning

    def _rows(self, keys: Collection[str], deadline: Deadline) -> dict[str, Record]:
        """The records that there are, by key; of several the youngest."""
        query = quote(f"correlation_idIN{','.join(keys)}^ORDERBYDESCsys_created_on", safe=",/")
        path = (
            f"{_TABLES}/{self._settings.table}?sysparm_query={query}&sysparm_limit={10 * len(keys)}"
            "&sysparm_fields=sys_id,correlation_id,correlation_display,state,active"
        )
        rows = self._ask("GET", path, None, deadline).get("result")
        if not isinstance(rows, list):
            raise _RefusedError(Stop(_NOT_SERVICENOW), _NOT_SERVICENOW)
        found: dict[str, Record] = {}
        for row in rows:
            # A query that is not understood is left out, and finds whatever there is.
            key = row.get("correlation_id")
            if key in keys and re.fullmatch("[0-9a-f]{32}", str(row.get("sys_id"))):
                found.setdefault(key, row)
        return found

    def _judge(self, request: Record, said: _Said) -> Verdict:
        if said.status in (200, 201) and isinstance(said.answer.get("result"), dict):
            return Accepted()
        if said.status == 404 and request["method"] == "PATCH":
            return Retry(said.reason)  # it was deleted: the next query does not find it
        return _verdict(said)


class _ImportSet(_Batches):
    """A row of an import set each; the transform map creates or changes the record."""

    _key = "u_correlation_id"

    def _requests(
        self, newest: Mapping[str, _Version], deadline: Deadline
    ) -> tuple[dict[str, Record], dict[str, Retry | Split], str]:
        path = f"{_IMPORT}/{self._settings.import_table}"
        return {key: _item("POST", path, it.record) for key, it in newest.items()}, {}, ""

    def _judge(self, request: Record, said: _Said) -> Verdict:
        results = said.answer.get("result")
        if said.status not in (200, 201) or not isinstance(results, list):
            return _verdict(said)
        table = self._settings.import_table
        if not results:
            return Stop(f"{table} has no active transform map")
        for result in results:
            status = str(result.get("status"))
            told = str(result.get("error_message") or result.get("status_message") or "")
            reason = self._say(said.status, f"transform {status}", told)
            if status == "error" and "no transform" in told.lower():
                return Stop(f"{reason}: {table} has no active transform map")
            if status in ("error", "skipped"):
                return Split(reason)
            if status == "pending":
                return Accepted(f"{table} is transformed later: its results are not known")
            if status not in ("inserted", "updated", "ignored"):
                return Stop(f"{reason}: this is no result of a transform")
        return Accepted()


def _stamp(alert: Alert) -> str:
    """What orders versions: the time of the event, which some kinds keep through all versions,
    then that of its arrival in the hub."""
    times = (min(max(0, ms), _MILLIS) for ms in (alert.event_ms, alert.enqueued_ms))
    return "".join(f"{ms:011x}" for ms in times)


def _packed(alert: Alert, record: Record) -> bytes:
    return f"{_stamp(alert)} ".encode() + msgspec.json.encode(record)


def _plan(it: _Version, row: Record | None) -> Literal["create", "change", "leave", "nothing"]:
    """What to do about a version of an alert. row: the record that there is.

    A record that people closed can no longer be changed, by ServiceNow's own rules. An alert that
    was resolved and is open again gets a new one; other news of an alert do not.
    """
    if row is None:
        return "create"
    mine, shown = _versions(it, row)
    if shown and (shown[1] > mine[1] or shown[4] == mine[4]):
        return "nothing"
    if row.get("active") != "false":
        return "change"
    if mine[2] in _CLOSED:
        return "nothing"
    return "create" if shown and shown[2] in _CLOSED else "leave"


def _change(it: _Version, row: Record, close_fields: Fields) -> Record:
    """What of the record the alert moved: people move the rest."""
    record = it.record
    mine, shown = _versions(it, row)
    moved = {"description", "work_notes", "correlation_display"}
    if not shown or shown[3] != mine[3]:
        moved |= {"impact", "urgency", "severity"}
    change = {name: value for name, value in record.items() if name in moved}
    state = row.get("state")
    if record.get("state") == _RESOLVED:
        if state != _RESOLVED:
            names = ("state", "close_code", "close_notes")
            change |= {name: record[name] for name in names} | close_fields
    elif "state" in record:
        reopened = state == _RESOLVED and shown is not None and shown[2] in _CLOSED
        if reopened or (state == _NEW and record["state"] == _IN_PROGRESS):
            change["state"] = _IN_PROGRESS
    return change


def _versions(it: _Version, row: Record) -> tuple[re.Match[str], re.Match[str] | None]:
    """Ours, and that which the record shows."""
    mine = _SHOWN.match(it.record["correlation_display"])
    assert mine is not None
    return mine, _SHOWN.match(str(row.get("correlation_display")))


def _item(method: str, url: str, record: Record) -> Record:
    """A request of a batch, but for its id."""
    headers = {"Content-Type": _JSON, "Accept": _JSON}
    return {
        "method": method,
        "url": url if url.startswith(_IMPORT) else f"{url}?sysparm_fields=sys_id",
        "headers": [{"name": name, "value": value} for name, value in headers.items()],
        "exclude_response_headers": True,
        "body": base64.b64encode(msgspec.json.encode(record)).decode(),
    }


def _verdict(said: _Said) -> Verdict:
    """What an answer about one record means where its API says nothing else."""
    status, reason = said.status, said.reason
    if status in (408, 425, 429) or status >= 500 or _OUT_OF_TIME.search(reason):
        return Retry(reason)
    if status == 401:
        return Refresh(reason)
    if _OF_SETTINGS.search(reason):
        return Stop(reason)
    if _THERE_ALREADY.search(reason):
        return Retry(reason)  # another process was faster: the next query finds it
    if status in (400, 422) or (status == 403 and _OF_RECORDS.search(reason)):
        return Split(reason)
    return Stop(reason)


def _sum(
    versions: Sequence[_Version],
    newest: Mapping[str, _Version],
    refused: Mapping[str, Retry | Split],
) -> Verdict:
    """Of many records. Where the newest version of one is dead, the one before is to be told."""
    reasons: dict[int, str] = {}
    again: list[int] = []
    for it in versions:
        verdict = refused.get(it.key)
        if isinstance(verdict, Split) and it is newest[it.key]:
            reasons[it.at] = verdict.reason
        elif verdict:
            again.append(it.at)
    if len(again) == len(versions):
        return Retry(next(iter(refused.values())).reason)
    return RejectItems(reasons, taken=True, again=tuple(again))


def _refusal(response: Response, reason: str, message: str, detail: str) -> Verdict:
    """What an answer that is no success means for the whole request."""
    said = f"{message} {detail}"
    if _TOO_LARGE.search(said):
        return Shrink(reason)
    if response.status < 300:
        return Retry(reason) if message else Stop(reason)
    if response.status == 429:
        return Retry(reason, after=_pause(response))
    if response.status == 400 and (_OF_SETTINGS.search(said) or not message):
        return Stop(reason)
    return judge(response, reason)


def _pause(response: Response) -> float | None:
    """Seconds that it asks for; a limit of requests an hour tells the moment of its end."""
    reset = str(response.headers.get("X-RateLimit-Reset", ""))
    asked = retry_after(response.headers)
    if asked is None and re.fullmatch(r"[0-9]{1,12}", reset):
        return max(0.0, float(reset) - time.time())
    return asked


def _error(answer: Record) -> tuple[str, str]:
    """Message and detail of a failure; empty where it is none."""
    error = answer.get("error")
    if isinstance(error, dict):
        return str(error.get("message") or "failure"), str(error.get("detail") or "")
    if error:
        return str(error), str(answer.get("error_description") or "")
    return ("failure", "") if answer.get("status") == "failure" else ("", "")


def _decode(body: bytes) -> Record:
    """A JSON object; empty where it is none."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _from_base64(text: object) -> bytes:
    try:
        return base64.b64decode(str(text or ""))
    except ValueError:
        return b""
