"""A reference may be shown; what it leads to never is."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from transforms.secrets import Secret, SecretError, SecretRef

VALUE = "hunter2-hunter2"


class Holder(BaseModel):
    token: SecretRef


def test_a_reference_leads_to_its_variable_or_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", VALUE)
    (tmp_path / "token").write_text(f"{VALUE}\r\n", encoding="utf-8")
    for reference in ("env:TOKEN", f"file:{tmp_path / 'token'}"):
        token = Holder.model_validate({"token": reference}).token
        assert token.resolve().reveal() == VALUE
        assert str(token) == reference


def test_a_reference_can_be_pickled_and_written_as_json() -> None:
    holder = Holder.model_validate({"token": "env:TOKEN"})
    assert pickle.loads(pickle.dumps(holder)) == holder
    assert holder.model_dump_json() == '{"token":"env:TOKEN"}'


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, "%s".__mod__])
def test_a_secret_does_not_show(show) -> None:
    assert show(Secret(VALUE)) == "Secret(***)"


def test_a_secret_cannot_be_pickled_or_take_notes() -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Secret(VALUE))
    with pytest.raises(AttributeError):
        Secret(VALUE).note = VALUE  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", [VALUE, "env:", "file:", "vault:x", "ENV:NAME", "", ":NAME"])
def test_a_literal_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Holder.model_validate({"token": text})
    message = refused.value.errors()[0]["msg"]
    assert "env:NAME (an environment variable) or file:/path" in message
    assert VALUE not in message


def test_a_reference_that_leads_nowhere_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOPE", raising=False)
    monkeypatch.setenv("EMPTY", "")
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff\xfe" + VALUE.encode())
    reasons = {
        "env:NOPE": "the environment variable NOPE is not set, or empty",
        "env:EMPTY": "the environment variable EMPTY is not set, or empty",
        f"file:{tmp_path}/none": "cannot be read: No such file or directory",
        f"file:{tmp_path}": "cannot be read: Is a directory",
        f"file:{tmp_path}/empty": "the file is empty",
        f"file:{tmp_path}/binary": "cannot be read: it is not UTF-8 text",
    }
    for reference, reason in reasons.items():
        with pytest.raises(SecretError) as error:
            SecretRef(reference).resolve()
        assert str(error.value) == f"{reference}: {reason}"
        assert error.value.__context__ is None or error.value.__suppress_context__
