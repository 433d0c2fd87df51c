"""The settings: one YAML file, checked whole before anything starts."""

from pipelines.settings.checks import Mistake, SettingsError, json_schema, load
from pipelines.settings.models import (
    DigestSettings,
    HistorySettings,
    Settings,
    SinkEntry,
    SourceEntry,
    Window,
)

__all__ = [
    "DigestSettings",
    "HistorySettings",
    "Mistake",
    "Settings",
    "SettingsError",
    "SinkEntry",
    "SourceEntry",
    "Window",
    "json_schema",
    "load",
]
