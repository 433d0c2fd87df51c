"""Two pipelines on one consumer group are noticed, by links that have an epoch for a moment.

A reader with an epoch has its partition alone: it drives out those of a lower one or none, and
while it reads none without is let in (Microsoft: "Event Hubs Receiver Epoch"). This project's
links have none, since paying what sinks are owed reads the same partitions over links of its own.
So an epoch is not held, it asks: who starts *claims* a partition with epoch 1 for a while, and who
reads it already is driven out thereby, and *defends* it with epoch 2, which ends the claim. Then
both let go, and the one who stays reads on without.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import time
from collections.abc import Iterator

from azure.eventhub import EventHubConsumerClient

from transforms.delivery.line import printable
from transforms.read.access import EventHubsAccess
from transforms.read.sdk import HubError, PartitionLink
from transforms.secrets import SecretError

__all__ = ["HubTaken", "alertbeam", "claim", "claims", "defend"]

_CLAIM, _DEFENCE = "alertbeam-claim", "alertbeam-defence"  # links' roles
_CLAIM_EPOCH, _DEFENCE_EPOCH = 1, 2
_CLAIM_SECONDS = 2.0  # for the other to notice, and to open a link of its own
_OPEN_SECONDS = 10.0
_FULL = "resource-limit-exceeded"
_BUSY = "server-busy"  # a namespace that is throttled says so; it passes
_ATTEMPTS, _PAUSE = 3, 1.0  # seconds


class HubTaken(HubError):
    """Somebody else reads the hub with this consumer group; the message says what to do."""


def claim(access: EventHubsAccess, partition: str) -> None:
    """Make sure that nobody else reads as this consumer group, asking for one of its partitions.

    Takes about 2 s where nobody does. Readers without an epoch (our own too: ask before anything
    is read) are cut off for that while. A reader with one is not disturbed.

    Raises HubTaken; HubError where the hub does not answer or refuses.
    """
    try:
        client = access.client()
    except (SecretError, OSError, ValueError) as error:
        raise HubError(str(error)) from error
    with client:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _claim(client, access, partition)
                return
            except HubError as error:
                if error.stolen:
                    raise _taken(access, error) from error
                if _BUSY not in str(error) or attempt == _ATTEMPTS:
                    raise
                time.sleep(_PAUSE)


def _claim(client: EventHubConsumerClient, access: EventHubsAccess, partition: str) -> None:
    try:
        with _link(client, access, partition, _CLAIM):
            pass
    except HubError as error:
        if _FULL not in str(error):  # five read already: the claim tells if they defend
            raise
    with _link(client, access, partition, _CLAIM, _CLAIM_EPOCH) as link:
        _hold(link, _CLAIM_SECONDS)


def defend(client: EventHubConsumerClient, access: EventHubsAccess, partition: str) -> None:
    """Drive out who has the partition with a lower epoch, and let go of it. Says nothing:
    whether the partition is free then, the next link sees."""
    with contextlib.suppress(HubError), _link(client, access, partition, _DEFENCE, _DEFENCE_EPOCH):
        pass


@contextlib.contextmanager
def _link(
    client: EventHubConsumerClient,
    access: EventHubsAccess,
    partition: str,
    role: str,
    epoch: int | None = None,
) -> Iterator[PartitionLink]:
    """A link that brings nothing, open within. Raises HubError."""
    link = PartitionLink(client, access.consumer_group, partition, 0, 0, role, epoch)
    try:
        link.open(_OPEN_SECONDS)
        yield link
    finally:
        link.close()


def _hold(link: PartitionLink, seconds: float) -> None:
    """Keep a link for a while. Raises HubError if it ends before."""
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(link.sock, selectors.EVENT_READ)
        while (left := end - time.monotonic()) > 0:
            if link.held() or selector.select(left):
                link.read()


def claims(error: HubError) -> bool:
    """Whether it was a claim that took a partition."""
    return error.rival.startswith(_CLAIM)


def alertbeam(error: HubError) -> str:
    """The machine and process of the alertbeam that took a partition; "" if none did."""
    found = re.match(r"alertbeam\S* (.+)", error.rival)
    return printable(found[1]) if found else ""


def _taken(access: EventHubsAccess, error: HubError) -> HubTaken:
    if at := alertbeam(error):
        who = f"another alertbeam ({at})"
    else:
        who = "another reader, by an epoch (a Function, an SDK's event processor, an alertbeam),"
    namespace = (access.namespace or "NAMESPACE").partition(".")[0]
    return HubTaken(
        f"{who} reads hub {access.hub} as consumer group {access.consumer_group}.\n"
        "Stop it, or give this run a consumer group of its own: make one,\n"
        "  az eventhubs eventhub consumer-group create --resource-group GROUP \\\n"
        f"    --namespace-name {namespace} --eventhub-name {access.hub} --name alertbeam\n"
        "and name it in the settings: `consumer_group: alertbeam`",
        stolen=True,
        rival=error.rival,
    )
