"""Power BI: rows pushed into a dataset (a push semantic model), for dashboards and counts.

Contract: "Push Datasets" of the Power BI REST API (learn.microsoft.com, rest/api/power-bi/
push-datasets) and "Push semantic model limitations". Tables can only be appended to: what became of
an alert is one more row. A dataset of this sort is made through the API alone, so the sink makes it
where there is none of its name; with the policy basicFIFO, by which a table holds its last 200,000
rows and never slows down (one of 250,000 takes 120 requests an hour).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from pydantic import Field, field_validator, model_validator

from schemas.alert import Alert
from schemas.formats.power_bi import COLUMNS, power_bi
from transforms.delivery.http import (
    HttpConnection,
    HttpSettings,
    Response,
    check_url,
    compress,
    judge,
)
from transforms.delivery.line import printable
from transforms.delivery.network import Deadline
from transforms.entra import Bearer, Credential
from transforms.secrets import SecretError
from transforms.sinks.base import (
    Connection,
    Limits,
    Rate,
    Refresh,
    Sink,
    Stop,
    Verdict,
)

__all__ = ["PowerBi", "PowerBiSettings"]

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SCOPES = {  # who gives tokens for which cloud's API
    "api.powerbigov.us": "https://analysis.usgovcloudapi.net/powerbi/api/.default",
    "api.high.powerbigov.us": "https://high.analysis.usgovcloudapi.net/powerbi/api/.default",
    "api.mil.powerbigov.us": "https://mil.analysis.usgovcloudapi.net/powerbi/api/.default",
    "api.powerbi.cn": "https://analysis.chinacloudapi.cn/powerbi/api/.default",
}
_SCOPE = "https://analysis.windows.net/powerbi/api/.default"
_AT_ONCE = 5  # requests that a dataset takes side by side
_AROUND = len(b'{"rows":[]}')
_MOST = 4 * 1024 * 1024  # bytes of a list of datasets
_ADVICE = {
    403: "the application needs the role Contributor in the workspace, and the tenant's setting "
    "that lets service principals use Fabric's APIs",
    404: "is there such a workspace, and in it this dataset, a push one, with this table?",
}
_COLUMNS = "the table's columns are not alertbeam's: give another `dataset`, or delete this one"

_making = threading.Lock()  # two of one name are made easily, and then neither is meant


class PowerBiSettings(HttpSettings):
    """Power BI: rows of a push dataset."""

    workspace: str = Field(description="The workspace's id, a GUID: in its address after /groups/.")
    dataset: str = Field(
        "alertbeam", min_length=1, description="The push dataset: its name, or its id (a GUID)."
    )
    table: str = Field(
        "Alerts", pattern=r"^[A-Za-z][A-Za-z0-9_ ]{0,99}$", description="The table in it."
    )
    create: bool = Field(
        True,
        description="Make the dataset where there is none of this name, with its table and "
        "columns; a table then holds its last 200,000 rows.",
    )
    credential: Credential = Field(
        "default",
        description="Who alertbeam is to Entra: `default` (a managed or workload identity, the "
        "environment, `az login`) or {client_secret: …}.",
    )
    url: str = Field(
        "https://api.powerbi.com",
        description="The API: of Azure Government https://api.powerbigov.us, of China "
        "https://api.powerbi.cn.",
    )
    max_bytes: int = Field(
        1_000_000, ge=10_000, description="Bytes of rows in one request, before compression."
    )
    gzip: bool = Field(
        False,
        description="Compress requests. Whether Power BI takes what is compressed is not "
        "documented.",
    )

    @field_validator("workspace")
    @classmethod
    def _check_workspace(cls, workspace: str) -> str:
        if not _GUID.fullmatch(workspace):
            raise ValueError("a workspace is given by its id: the GUID after /groups/")
        return workspace.lower()

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        checked = check_url(url.rstrip("/"), path="")
        if urlsplit(checked).path:
            raise ValueError("the address of the API alone is needed: https://api.powerbi.com")
        return checked

    @model_validator(mode="after")
    def _check_concurrency(self) -> PowerBiSettings:
        if self.concurrency > _AT_ONCE:
            raise ValueError(f"a dataset takes {_AT_ONCE} requests at once: `concurrency` is more")
        return self


class PowerBi(Sink[PowerBiSettings]):
    """One table."""

    kind = "power_bi"
    Settings = PowerBiSettings
    example: ClassVar = {
        "workspace": "f089354e-8366-4e18-aea3-4cb4a3a50b48",
        "credential": {
            "client_secret": {
                "tenant_id": "72f988bf-86f1-41af-91ab-2d7cd011db47",
                "client_id": "00001111-aaaa-2222-bbbb-3333cccc4444",
                "secret": "env:POWER_BI_SECRET",
            }
        },
    }

    @property
    def limits(self) -> Limits:
        return Limits(
            self.settings.max_bytes - _AROUND,
            max_records=10_000,
            rate=Rate.model_validate({"requests": 120 / 60, "records": 1_000_000 / 3600}),
        )

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        return power_bi(alert)

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        if len(power_bi(alert)) <= most:  # it was refused for something else
            return None
        rows = (power_bi(alert, longest=longest) for longest in (1000, 250, 60))
        return next((row for row in rows if len(row) <= most), None)

    def connect(self) -> Connection:
        return _Table(self.settings)

    def probe(self, timeout: float) -> None:
        self.check(timeout)

    def check(self, timeout: float) -> str:
        table = _Table(self.settings)
        try:
            return table.look(Deadline(timeout))
        finally:
            table.close()

    @property
    def target(self) -> str:
        settings = self.settings
        return f"workspace {settings.workspace}, dataset {settings.dataset}, {settings.table}"

    def find(self, event_id: str) -> str:
        table = self.settings.table.replace("'", "''")
        return f"""in the DAX query view: EVALUATE FILTER('{table}', [EventId] = "{event_id}")"""


class _RefusedError(Exception):
    """An answer that ends what was to come before the rows."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict


class _Table(Connection):
    """The way to one table; its dataset is looked up once a connection."""

    def __init__(self, settings: PowerBiSettings) -> None:
        self._settings = settings
        scope = _SCOPES.get(urlsplit(settings.url).hostname or "", _SCOPE)
        self._bearer = Bearer(settings.credential, scope, settings.timeout)
        self._http = HttpConnection(settings.url, settings, {"Content-Type": "application/json"})
        self._datasets = f"/v1.0/myorg/groups/{settings.workspace}/datasets"
        self._named = not _GUID.fullmatch(settings.dataset)
        self._dataset = "" if self._named else settings.dataset

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        deadline = Deadline(timeout)
        try:
            if not self._dataset:
                self._dataset = self._found(deadline) or self._made(deadline)
            path = f"{self._datasets}/{self._dataset}/tables/{quote(self._settings.table)}/rows"
            response = self._ask("POST", path, b'{"rows":[%b]}' % b",".join(payloads), deadline)
        except SecretError as error:  # Entra's refusal: the secret may have been replaced
            return Refresh(str(error))
        except _RefusedError as error:
            return error.verdict
        return self._judge(response)

    def look(self, deadline: Deadline) -> str:
        """What is there. Raises OSError or SecretError."""
        settings = self._settings
        try:
            found = self._found(deadline) if self._named else self._dataset
            if not self._named:
                self._expect(self._ask("GET", f"{self._datasets}/{found}", b"", deadline), 200)
        except _RefusedError as error:
            raise ConnectionError(getattr(error.verdict, "reason", "it is not as asked")) from None
        if found:
            return f"Entra gives a token; the dataset {settings.dataset} is there"
        if not settings.create:
            raise ConnectionError(self._missing())
        return (
            f"Entra gives a token, and the workspace lets it in; the dataset {settings.dataset} "
            "is not there yet: it is made with the first alert"
        )

    def close(self) -> None:
        self._http.close()
        self._bearer.close()

    def _found(self, deadline: Deadline) -> str:
        """The id of the dataset of this name; empty where there is none."""
        answer = self._expect(self._ask("GET", self._datasets, b"", deadline), 200)
        listed = answer.get("value")
        if not isinstance(listed, list):
            raise _RefusedError(Stop("it lists no datasets: this is no answer of Power BI"))
        ids = [
            str(each.get("id", ""))
            for each in listed
            if isinstance(each, dict)
            and each.get("name") == self._settings.dataset
            and each.get("addRowsAPIEnabled") is not False
        ]
        if len(ids) > 1:
            name = self._settings.dataset
            raise _RefusedError(
                Stop(f"there are {len(ids)} push datasets {name}: give the id of one as `dataset`")
            )
        return self._identity(ids[0]) if ids else ""

    def _made(self, deadline: Deadline) -> str:
        """The id of a new dataset of this name, unless another sender has made one just now."""
        settings = self._settings
        if not settings.create:
            raise _RefusedError(Stop(self._missing()))
        if not _making.acquire(timeout=deadline.left()):
            raise TimeoutError("timed out")
        try:
            if found := self._found(deadline):
                return found
            columns = [{"name": name, "dataType": kind} for name, kind in COLUMNS.items()]
            table = {"name": settings.table, "columns": columns}
            asked = {"name": settings.dataset, "defaultMode": "Push", "tables": [table]}
            path = f"{self._datasets}?defaultRetentionPolicy=basicFIFO"
            response = self._ask("POST", path, json.dumps(asked).encode(), deadline)
            return self._identity(str(self._expect(response, 201, 202).get("id", "")))
        finally:
            _making.release()

    def _identity(self, text: str) -> str:
        if not _GUID.fullmatch(text):
            raise _RefusedError(Stop("it names no dataset: this is no answer of Power BI"))
        return text

    def _missing(self) -> str:
        return f"there is no push dataset {self._settings.dataset}, and `create` is false"

    def _ask(self, method: str, path: str, body: bytes, deadline: Deadline) -> Response:
        headers = {"Authorization": self._bearer.header()}
        if self._settings.gzip and body:
            headers["Content-Encoding"] = "gzip"
            body = compress(body)
        return self._http.request(method, path, body, headers, deadline.left(), _MOST)

    def _expect(self, response: Response, *statuses: int) -> dict[str, Any]:
        """The answer to a question about datasets."""
        if response.status not in statuses:
            verdict = self._judge(response)
            if 200 <= response.status < 300 or response.status in (400, 413, 422):
                verdict = Stop(self._say(response))  # it is not about records
            raise _RefusedError(verdict)
        return _decode(response)

    def _judge(self, response: Response) -> Verdict:
        status, said = response.status, self._say(response)
        code, text = _error(response)
        if code == "TokenExpired":  # a 403
            return Refresh(said)
        if status == 200 and "html" in str(response.headers.get("Content-Type", "")):
            return Stop(f"{said}: this is a web page, and no answer of Power BI")
        if 200 < status < 300:
            return Stop(f"{said}: this is no answer of Power BI")
        if status == 404 and self._named:  # made anew since, perhaps: it is looked up again
            return Refresh(said)
        if status == 400 and "column" in text.lower():
            return Stop(f"{said}: {_COLUMNS}")
        return judge(response, said)

    def _say(self, response: Response) -> str:
        code, text = _error(response)
        said = f"HTTP {response.status} {response.reason}"
        if code or text:
            said += f": {' '.join(filter(None, (code, text)))}"
        if advice := _ADVICE.get(response.status):
            said += f": {advice}"
        return printable(self._bearer.hide(said))


def _decode(response: Response) -> dict[str, Any]:
    try:
        answer = json.loads(response.body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _error(response: Response) -> tuple[str, str]:
    """An answer's error: its code, and a sentence; either may be empty."""
    answer = _decode(response)
    error = answer.get("error", answer)  # a throttled answer may be the bare message
    if not isinstance(error, dict):
        return "", ""
    code, text = error.get("code"), error.get("message")
    return (code if isinstance(code, str) else "")[:80], (text if isinstance(text, str) else "")[
        :200
    ]
