"""The invented tenant that the examples are about."""

from __future__ import annotations

SUBSCRIPTION = "7f3c1e20-55aa-4b6b-9d0e-0123456789ab"
WORKSPACE_SUBSCRIPTION = "99999999-0000-4000-8000-000000000001"
RESOURCE = (
    f"/subscriptions/{SUBSCRIPTION.upper()}/resourceGroups/rg-shop/providers"
    "/Microsoft.Compute/virtualMachines/shop-vm-1"
)
PORTAL = "https://portal.azure.com/#blade"
