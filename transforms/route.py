"""Which alerts a sink gets: conditions from the settings, compiled once into a plain predicate."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
)
from pydantic_core import PydanticCustomError, core_schema

from schemas.alert import SEVERITIES, STATUSES, Alert
from schemas.batch import AlertBatch, Dropped
from schemas.kinds import KINDS
from schemas.receipt import Outcome

__all__ = ["AtLeast", "Predicate", "Where", "compile_where", "route_batch", "why_not"]

Predicate = Callable[[Alert], bool]
_TextTest = Callable[[str], bool]


# What may be said


class _Listed:
    """A list of at least one, that for one may be written without the list."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self._listed, handler(source))

    def __get_pydantic_json_schema__(
        self, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        array = handler(core)
        return {"anyOf": [array["items"], {**array, "minItems": 1}]}

    @staticmethod
    def _listed(value: Any) -> Any:
        if value in ([], ()):
            raise ValueError("must not be empty")
        return value if isinstance(value, list | tuple | dict) else [value]


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _known_kind(text: str) -> str:
    if not any(map(_matches([text]), KINDS)):
        raise PydanticCustomError("choice", "no such kind of event", {"choices": [*KINDS]})
    return text


_Word = Annotated[str, StringConstraints(min_length=1)]
_Severity = Annotated[Literal[SEVERITIES], BeforeValidator(_lower)]  # type: ignore[valid-type]
_Status = Annotated[Literal[STATUSES], BeforeValidator(_lower)]  # type: ignore[valid-type]
_Kind = Annotated[_Word, AfterValidator(_known_kind)]

_T = TypeVar("_T")
_OneOrMore = Annotated[tuple[_T, ...], _Listed()]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class AtLeast(_Model):
    """A severity and all above it; `unknown` is below all others."""

    at_least: _Severity = Field(description="The least severity.")


class Where(_Model):
    """Which alerts: every condition that is given must hold; case never matters.

    Where a key takes a list, any of its values will do; where it says *, that stands for any text.
    """

    severity: _OneOrMore[_Severity] | AtLeast | None = Field(
        None, description="One of these, or {at_least: medium}."
    )
    kind: _OneOrMore[_Kind] | None = Field(
        None, description="Kinds of event, such as `defender_*`."
    )
    status: _OneOrMore[_Status] | None = Field(None, description="One of these.")
    subscription: _OneOrMore[_Word] | None = Field(None, description="Subscription ids or names.")
    environment: _OneOrMore[_Word] | None = Field(
        None, description="The subscription's environment."
    )
    tag: dict[str, _OneOrMore[_Word]] | None = Field(
        None, min_length=1, description="The subscription's tags, as {team: red}: all of them."
    )
    product: _OneOrMore[_Word] | None = Field(
        None, description="Product names; * stands for any text."
    )
    alert_type: _OneOrMore[_Word] | None = Field(
        None, description="Alert types; * stands for any text."
    )
    any_: tuple[Where, ...] | None = Field(
        None, alias="any", min_length=1, description="At least one of these conditions holds."
    )
    all_: tuple[Where, ...] | None = Field(
        None, alias="all", min_length=1, description="All of these conditions hold."
    )
    not_: Where | None = Field(None, alias="not", description="This condition does not hold.")


# How it is decided


def compile_where(where: Where | None) -> Predicate:
    """`where` as a function of an alert; without conditions everything matches.

    The predicate holds closures: compile it on the worker, do not pickle it.
    """
    return _all([] if where is None else list(_tests(where)))


def _tests(where: Where) -> Iterator[Predicate]:
    if where.severity is not None:
        yield _severity(where.severity)
    if where.status is not None:
        statuses = frozenset(where.status)
        yield lambda alert: alert.status in statuses
    if where.kind is not None:
        kind = _matches(where.kind)
        yield lambda alert: kind(alert.kind)
    if where.product is not None:
        product = _matches(where.product)
        yield lambda alert: product(alert.product)
    if where.alert_type is not None:
        alert_type = _matches(where.alert_type)
        yield lambda alert: alert_type(alert.alert_type)
    if where.subscription is not None:
        yield _subscription(_one_of(where.subscription))
    if where.environment is not None:
        yield _environment(_one_of(where.environment))
    for name, values in (where.tag or {}).items():
        yield _tag(name.casefold(), _one_of(values))
    yield from map(compile_where, where.all_ or ())
    if where.any_ is not None:
        yield _any([compile_where(each) for each in where.any_])
    if where.not_ is not None:
        unwanted = compile_where(where.not_)
        yield lambda alert: not unwanted(alert)


def why_not(where: Where | None, alert: Alert) -> str:
    """The first condition that the alert does not meet, and what it has instead; empty if it
    meets them all, which is when `compile_where(where)` holds."""
    if where is None:
        return ""
    for name, field in type(where).model_fields.items():
        value = getattr(where, name)
        if value is None:
            continue
        key = field.alias or name
        only = Where.model_validate({key: value})
        if compile_where(only)(alert):
            continue
        if name == "all_":
            return next(filter(None, (why_not(each, alert) for each in value)))
        said = only.model_dump(mode="json", by_alias=True, exclude_none=True)[key]
        wanted = json.dumps(said, ensure_ascii=False).replace('"', "")
        if name == "any_":
            return f"none of these holds: {wanted}"
        if name == "not_":
            return f"it is what `not` excludes: {wanted}"
        return f"{key} is {_has(alert, name)}, wanted is {wanted}"
    return ""


def _has(alert: Alert, name: str) -> str:
    """What an alert has where a condition of this name looks."""
    of = alert.subscription
    if name == "environment":
        return (of.environment if of else "") or "not known"
    if name == "tag":
        return ", ".join(f"{key}: {value}" for key, value in of.tags.items()) if of else "not known"
    if name == "subscription":
        named = [alert.subscription_id, of.name if of else ""]
        return " ".join(filter(None, named)) or "not known"
    return str(getattr(alert, name)) or "empty"


def _all(tests: list[Predicate]) -> Predicate:
    if len(tests) == 1:
        return tests[0]

    def all_hold(alert: Alert) -> bool:
        for test in tests:  # noqa: SIM110 - a generator would cost as much as the tests
            if not test(alert):
                return False
        return True

    return all_hold


def _any(tests: list[Predicate]) -> Predicate:
    def one_holds(alert: Alert) -> bool:
        for test in tests:  # noqa: SIM110
            if test(alert):
                return True
        return False

    return one_holds


def _severity(wanted: tuple[str, ...] | AtLeast) -> Predicate:
    if isinstance(wanted, AtLeast):
        wanted = SEVERITIES[SEVERITIES.index(wanted.at_least) :]
    severities = frozenset(wanted)
    return lambda alert: alert.severity in severities


def _subscription(wanted: _TextTest) -> Predicate:
    return lambda alert: (
        wanted(alert.subscription_id)
        or (alert.subscription is not None and wanted(alert.subscription.name))
    )


def _environment(wanted: _TextTest) -> Predicate:
    return lambda alert: alert.subscription is not None and wanted(alert.subscription.environment)


def _tag(wanted_name: str, wanted: _TextTest) -> Predicate:
    def has_tag(alert: Alert) -> bool:
        if alert.subscription is not None:
            for name, value in alert.subscription.tags.items():
                if name.casefold() == wanted_name and wanted(value):
                    return True
        return False

    return has_tag


def _one_of(words: Collection[str]) -> _TextTest:
    wanted = frozenset(word.casefold() for word in words)
    return lambda text: text.casefold() in wanted


def _matches(patterns: Collection[str]) -> _TextTest:
    """Whether a text is one of `patterns`, where * stands for any text."""
    exactly = _one_of([pattern for pattern in patterns if "*" not in pattern])
    globs = [pattern for pattern in patterns if "*" in pattern]
    if not globs:
        return exactly
    pattern = re.compile(
        "|".join(".*".join(map(re.escape, glob.casefold().split("*"))) for glob in globs),
        re.DOTALL,
    )
    return lambda text: exactly(text) or pattern.fullmatch(text.casefold()) is not None


def route_batch(batch: AlertBatch, sink: str, predicate: Predicate) -> AlertBatch | None:
    """`batch` as `sink` gets it; the alerts it does not want are dropped as not routed.

    None if the batch is addressed to another sink, or to nobody. One that is addressed to this
    sink passes whole: it was routed when it became owed, unless it is of dead letters. `batch`
    itself is left as it is.
    """
    if batch.only is not None:
        if batch.only != sink:
            return None
        if not batch.retried:
            return batch
    wanted: list[Alert] = []
    dropped = list(batch.dropped)
    for alert in batch.alerts:
        if predicate(alert):
            wanted.append(alert)
        else:
            dropped.append(Dropped(alert.sequence, alert.index, Outcome.NOT_ROUTED))
    return msgspec.structs.replace(batch, alerts=wanted, dropped=dropped)
