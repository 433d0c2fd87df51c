"""What a settings file may say. A field's description is its documentation.

All of it can be printed and pickled: secrets are references. Durations are seconds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from transforms.digest import KEYS, TAG
from transforms.read.access import EventHubsAccess
from transforms.route import Where
from transforms.secrets import SecretError, SecretRef
from transforms.sinks.base import Sink, SinkSettings, sinks

__all__ = [
    "Deduplicate",
    "DigestSettings",
    "OfSource",
    "Settings",
    "SinkEntry",
    "Sliding",
    "SourceEntry",
    "Subscriptions",
    "Window",
    "endpoint",
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhd]?)"
_LONGEST = 366 * 86_400


def _seconds(value: Any) -> float:
    match = re.fullmatch(_DURATION, str(value))
    if match is None:
        raise ValueError("must be a duration, such as 90s, 5m, 24h, 7d, or a number of seconds")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST:
        raise ValueError("must not be longer than 366d")
    return seconds


def _positive(seconds: float) -> float:
    if not seconds:
        raise ValueError("must be longer than 0s")
    return seconds


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", text):
        raise ValueError("a name is up to 64 letters, digits, - and _, and starts with no sign")
    return text


def _sink_name(text: str) -> str:
    if text.lower() in ("parse", "digests"):
        raise ValueError("this name is taken by a step of the pipeline; choose another")
    return _name(text)


def _digest_key(text: str) -> str:
    if text not in KEYS and not (text.startswith(TAG) and text != TAG):
        choices = [*KEYS, f"{TAG}NAME"]
        raise PydanticCustomError("choice", "digests cannot count by this", {"choices": choices})
    return text


_Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema(
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{_DURATION}$"}]}
    ),
]
_Duration = Annotated[_Seconds, AfterValidator(_positive)]
_DigestKey = Annotated[
    str,
    AfterValidator(_digest_key),
    WithJsonSchema({"anyOf": [{"enum": [*KEYS]}, {"type": "string", "pattern": f"^{TAG}."}]}),
]


# Where events come from


def endpoint(connection_string: SecretRef) -> str:
    """The host (and port, if any) that a connection string leads to. Raises SecretError."""
    text = connection_string.resolve().reveal()
    found = re.search(r"(?:^|;)\s*Endpoint\s*=\s*sb://([^/;\s]+)", text, re.IGNORECASE)
    if found is None or not re.search(r"(?:^|;)\s*SharedAccess\w+\s*=", text, re.IGNORECASE):
        raise SecretError(
            f"{connection_string}: holds no connection string of Event Hubs "
            "(Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…)"
        )
    return found[1].lower()


_Scope = Literal["global", "worker", "off"]


class OfSource(_Model):
    """How exact repeats of one source are told."""

    scope: _Scope = Field(description="As the one for all: `global`, `worker`, or `off`.")


class SourceEntry(_Model):
    """One place that events come from."""

    event_hubs: EventHubsAccess = Field(description="An event hub, in Azure or embedded.")
    deduplicate: OfSource | None = Field(
        None, description="Otherwise than for all: {scope: worker}, say, for logs hardly repeat."
    )

    @property
    def name(self) -> str:
        """`namespace/hub/consumer_group`, as origins have it. May raise SecretError."""
        hub = self.event_hubs
        host = hub.namespace.lower() if hub.namespace else endpoint(_given(hub.connection_string))
        return f"{host}/{hub.hub}/{hub.consumer_group}"


def _given(reference: SecretRef | None) -> SecretRef:
    assert reference is not None, "EventHubsAccess has one of the two"
    return reference


# What is made of them


class Subscriptions(_Model):
    """What is known of the Azure subscriptions."""

    file: Path = Field(description="A .yaml, .json or .csv file: id, name, owner, tags, …")


class Deduplicate(_Model):
    """How exact repeats are told."""

    horizon: _Duration = Field(
        "24h", validate_default=True, description="How far back a repeat is known as one."
    )
    scope: _Scope = Field(
        "global",
        description="On a cluster: among which alerts repeats are told: of all workers (each alert "
        "crosses between them), of each worker alone, or off. On one machine, `off` or all.",
    )
    shards: int = Field(
        1, ge=1, le=1024, description="Parts of the memory: 1 on one machine; on a cluster about "
        "twice the parallelism, which is what 1 means there."
    )  # fmt: skip

    @property
    def horizon_ms(self) -> int:
        """As enqueued times are counted."""
        return int(self.horizon * 1000)


class Sliding(_Model):
    """Windows that overlap."""

    size: _Duration = Field(description="How long a window is.")
    every: _Duration = Field(description="How long after one begins the next does.")

    @model_validator(mode="after")
    def _covers(self) -> Sliding:
        if self.every > self.size:
            raise ValueError(
                "`every` is longer than `size`: alerts between windows would not count"
            )
        return self


def _one_of(given: dict[str, Any], what: str) -> str:
    """The one name in `given` whose value is set. Raises ValueError."""
    found = [name for name, value in given.items() if value is not None]
    if len(found) != 1:
        but = f", not {' and '.join(found)}" if found else ""
        raise ValueError(f"needs exactly one {what} ({', '.join(given)}){but}")
    return found[0]


class Window(_Model):
    """How event time is cut: exactly one of the three."""

    fixed: _Duration | None = Field(None, description="Windows of this length, end to end.")
    sliding: Sliding | None = Field(None, description="Windows that overlap.")
    session: _Duration | None = Field(
        None, description="A window ends when nothing came for this long."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Window:
        _one_of(dict(self), "kind of window")
        return self


class DigestSettings(_Model):
    """Counts of alerts by keys and windows."""

    name: Annotated[str, AfterValidator(_name)] = Field(description="What it is called.")
    window: Window = Field(description="How event time is cut: fixed, sliding or session.")
    by: tuple[_DigestKey, ...] = Field((), description="What is counted apart; none: all in one.")
    early: _Duration | None = Field(None, description="Tell of a window this often before its end.")
    lateness: _Seconds = Field(
        "1h", validate_default=True, description="How late an alert still counts."
    )
    samples: int = Field(5, ge=0, le=100, description="Alerts named in a digest as examples.")

    @model_validator(mode="after")
    def _once(self) -> DigestSettings:
        if len({*self.by}) < len(self.by):
            raise ValueError("`by` names a key twice")
        return self


# Where they go

# One optional field a sink: `splunk_hec: {…}`. What is in the folder is what may be said.
_Kinds: Any = create_model(
    "_Kinds",
    __base__=_Model,
    **cast(
        Any,
        {
            kind: (sink.Settings, Field(None, description=sink.Settings.__doc__))
            for kind, sink in sinks().items()
        },
    ),
)


class SinkEntry(_Kinds):
    """One system that alerts, or digests of them, are written to."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [kind]} for kind in sinks()]}
    )

    name: Annotated[str, AfterValidator(_sink_name)] = Field(
        "", description="What it is called, in reports and the state store. Default: its kind."
    )
    where: Where | None = Field(None, description="Which alerts it gets. Default: all.")
    send: Literal["alerts", "digests"] = Field("alerts", description="What it gets.")

    @model_validator(mode="before")
    @classmethod
    def _named_by_kind(cls, data: Any) -> Any:
        if isinstance(data, dict) and "name" not in data:
            data = {**data, "name": next((key for key in data if key in sinks()), "unnamed")}
        return data

    @model_validator(mode="after")
    def _exactly_one(self) -> SinkEntry:
        _one_of({kind: getattr(self, kind) for kind in sinks()}, "system")
        if self.send == "digests" and self.where is not None:
            raise ValueError("`where` chooses alerts; this sink gets digests")
        return self

    @property
    def kind(self) -> str:
        """Which system it is: `splunk_hec`."""
        return next(kind for kind in sinks() if getattr(self, kind) is not None)

    @property
    def settings(self) -> SinkSettings:
        """The system's own settings."""
        found: SinkSettings = getattr(self, self.kind)
        return found

    def build(self) -> Sink[Any]:
        """The sink itself, picklable; it connects to nothing yet."""
        return sinks()[self.kind](self.name, self.settings)


def _local(value: Any) -> Any:
    if isinstance(value, str) and re.match(r"(?!file:)\w{2,}:", value):
        raise ValueError("must be a local folder: file:///path, or a plain path")
    return value


class Settings(_Model):
    """Where alerts come from, what is made of them, and where they go."""

    sources: tuple[SourceEntry, ...] = Field(min_length=1, description="Where events come from.")
    subscriptions: Subscriptions | None = Field(None, description="What alerts are enriched with.")
    deduplicate: Deduplicate = Field(
        Deduplicate.model_validate({}), description="How exact repeats are told."
    )
    mask: bool = Field(
        True,
        description="Mask secrets that alerts quote: signatures of shared access, keys, passwords.",
    )
    digests: tuple[DigestSettings, ...] = Field((), description="Counts by keys and windows.")
    sinks: tuple[SinkEntry, ...] = Field(min_length=1, description="Where alerts go.")
    state: Annotated[Path, BeforeValidator(_local)] = Field(
        description="The folder of checkpoints, IOUs and dead letters: file:///path or a path."
    )
    shift: _Duration | None = Field(
        None, description="The longest run between hand-overs on the local runner."
    )
    watchdog: _Duration = Field(
        120.0,
        description="How long a run may not get on at all, until it starts itself again at its "
        "checkpoint.",
    )


class HistorySettings(Settings):
    """Settings that are enough to replay files: alerts need not come from anywhere live."""

    sources: tuple[SourceEntry, ...] = Field((), description="Where events come from.")
