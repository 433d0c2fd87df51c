"""OpenSearch: the sink of Elasticsearch, by the name that users look for.

Contract: "Bulk API" (docs.opensearch.org), as far as it is Elasticsearch's. What differs are the
credentials, and that no name is a data stream's unless a template says so.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from transforms.secrets import SecretRef
from transforms.sinks.elasticsearch import Elasticsearch, ElasticsearchSettings

__all__ = ["OpenSearch", "OpenSearchSettings"]


class OpenSearchSettings(ElasticsearchSettings):
    """OpenSearch, through the bulk API; also as a service that takes a user and a password."""

    index: str = Field("alertbeam-alerts", description="The index, alias or data stream.")
    api_key: SecretRef | None = Field(
        None, description="Not taken: OpenSearch knows users and passwords."
    )
    username: str = Field(
        "",
        description="The user, with the cluster permission `cluster_composite_ops` and, on the "
        "index, `crud` and `create_index`.",
    )

    @field_validator("api_key")
    @classmethod
    def _check_no_key(cls, key: SecretRef | None) -> None:
        if key is not None:
            raise ValueError("OpenSearch takes `username` and `password`, no API key")


class OpenSearch(Elasticsearch):
    """One index, alias or data stream."""

    kind = "opensearch"
    Settings = OpenSearchSettings
    example: ClassVar = {
        "url": "https://opensearch.example.com:9200",
        "username": "alertbeam",
        "password": "env:OPENSEARCH_PASSWORD",
    }
