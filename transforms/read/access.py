"""How an event hub and its checkpoints are reached: settings, and the clients made from them."""

from __future__ import annotations

import re
from typing import Any, Literal

from azure.eventhub import EventHubConsumerClient, TransportType
from pydantic import BaseModel, ConfigDict, Field, model_validator

from transforms.entra import Credential, identity
from transforms.secrets import SecretRef

__all__ = ["BlobCheckpoints", "EventHubsAccess"]

# Whoever asks tries again by itself.
_PATIENCE = {"retry_total": 0, "connection_timeout": 5, "read_timeout": 10}
_CONTAINER = r"[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){2,62}"


class BlobCheckpoints(BaseModel):
    """Where in Azure Blob Storage the consumers of a group keep their checkpoints."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    container: str = Field(
        description="https://ACCOUNT.blob.core.windows.net/CONTAINER; with a `connection_string`, "
        "the container's name."
    )
    connection_string: SecretRef | None = Field(
        None, description="Where the storage account's lies: env:NAME or file:/path."
    )
    credential: Credential = Field(
        "default", description="`default` (azure-identity's chain) or {client_secret: …}."
    )
    every: float = Field(
        5.0, gt=0, description="Seconds from one time that ours are published to the next."
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> BlobCheckpoints:
        if "?" in self.container:
            raise ValueError(
                "a URL with a signature is a secret: put it into a connection string "
                "(BlobEndpoint=…;SharedAccessSignature=…), and give `connection_string` and the "
                "container's name"
            )
        if self.connection_string is not None:
            if not re.fullmatch(_CONTAINER, self.container):
                raise ValueError(
                    "with `connection_string`, `container` is a name: "
                    "3 to 63 small letters, digits and hyphens"
                )
        elif not re.fullmatch(rf"https://[\w.:-]+(?:/\w+)?/{_CONTAINER}/?", self.container):
            raise ValueError(
                "`container` is https://ACCOUNT.blob.core.windows.net/CONTAINER; or give "
                "`connection_string` (a reference) and the container's name"
            )
        return self

    def client(self) -> Any:
        """A new ContainerClient, which does not try again by itself. Resolves the secrets it
        needs: raises SecretError, and ValueError if they are none of Azure Storage."""
        from azure.storage.blob import ContainerClient  # slow to import, and only needed here

        if self.connection_string is not None:
            return ContainerClient.from_connection_string(
                self.connection_string.resolve().reveal(), self.container, **_PATIENCE
            )
        return ContainerClient.from_container_url(
            self.container.rstrip("/"), identity(self.credential), **_PATIENCE
        )


class EventHubsAccess(BaseModel):
    """One event hub to read, and where its partitions begin.

    Holds references to secrets, never a secret: it may be printed and pickled.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    hub: str = Field(min_length=1, description="The event hub's name.")
    namespace: str | None = Field(
        None,
        description="NAME.servicebus.windows.net; needs `credential`, not a connection string.",
    )
    consumer_group: str = Field(
        "$Default", min_length=1, description="The consumer group to read as; best one of its own."
    )
    connection_string: SecretRef | None = Field(
        None, description="Where a connection string lies: env:NAME or file:/path."
    )
    credential: Credential = Field(
        "default", description="`default` (azure-identity's chain) or {client_secret: …}."
    )
    start: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a partition without a checkpoint begins."
    )
    retention_hours: float = Field(
        24.0,
        gt=0,
        description="How long the hub keeps events, as it is set in Azure. What a sink is owed for "
        "half of that is set aside in the state folder, before the hub forgets it.",
    )
    prefetch: int = Field(
        3000, ge=1, le=10_000, description="Events that the hub may send ahead, a partition."
    )
    checkpoints: BlobCheckpoints | None = Field(
        None,
        description="Where the SDKs keep checkpoints of the consumer group: a partition that this "
        "pipeline has not read yet begins where others left off, and ours are published for them.",
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> EventHubsAccess:
        if (self.namespace is None) == (self.connection_string is None):
            raise ValueError(
                "give either `namespace` (with azure-identity) or `connection_string` (a reference)"
            )
        return self

    def client(self) -> EventHubConsumerClient:
        """A new SDK client for this hub. Resolves the secrets it needs: raises SecretError."""
        options: dict[str, Any] = {
            # A permanent refusal must raise at once; this project backs off itself.
            "retry_total": 0,
            "socket_timeout": 0.05,
            "keep_alive": None,
            "transport_type": TransportType.Amqp,
        }
        if self.connection_string is not None:
            return EventHubConsumerClient.from_connection_string(
                self.connection_string.resolve().reveal(),
                self.consumer_group,
                eventhub_name=self.hub,
                **options,
            )
        return EventHubConsumerClient(
            self.namespace, self.hub, self.consumer_group, identity(self.credential), **options
        )
