"""How an event hub is reached: its settings, and the SDK's client made from them."""

from __future__ import annotations

from typing import Any, Literal

from azure.eventhub import EventHubConsumerClient, TransportType
from pydantic import BaseModel, ConfigDict, Field, model_validator

from transforms.secrets import SecretRef

__all__ = ["ClientSecret", "EventHubsAccess"]


class ClientSecret(BaseModel):
    """An Entra application's credential."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    tenant_id: str = Field(description="The Entra tenant's id.")
    client_id: str = Field(description="The application's id.")
    secret: SecretRef = Field(description="Where its secret lies: env:NAME or file:/path.")


class EntraCredential(BaseModel):
    """Access through azure-identity with an application of one's own."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    client_secret: ClientSecret


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
    credential: Literal["default"] | EntraCredential = Field(
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
            self.namespace, self.hub, self.consumer_group, self._identity(), **options
        )

    def _identity(self) -> Any:
        from azure import identity  # slow to import, and only needed here

        if self.credential == "default":
            return identity.DefaultAzureCredential()
        secret = self.credential.client_secret
        return identity.ClientSecretCredential(
            secret.tenant_id, secret.client_id, secret.secret.resolve().reveal()
        )
