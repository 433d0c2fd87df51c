"""A SecurityAlert row of Defender for IoT, after its documentation and the rules of Sentinel's
solution for it; no real one was seen."""

from __future__ import annotations

from typing import Any

from msgspec.json import encode

from tests.examples._base import SUBSCRIPTION, WORKSPACE_SUBSCRIPTION

IDENTITY = ("SystemAlertId",)
VERSION = ("Status", "ProcessingEndTime", "_ItemId")
RESOLVED = {"Status": "Resolved"}

HUB = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-plant/providers/Microsoft.Devices/IotHubs/h"
ENTITIES = [
    {
        "$id": "3",
        "DeviceId": "plc-7-id",
        "DeviceName": "PLC 7",
        "DeviceType": "PLC",
        "Source": "Microsoft",
        "Manufacturer": "Example Controls",
        "IoTHub": {"$id": "4", "ResourceId": HUB, "Type": "azure-resource"},
        "IpAddress": {"$id": "5", "Address": "10.7.0.7", "Type": "ip"},
        "MacAddress": "00:00:5e:00:53:07",
        "Protocols": ["Modbus", "S7"],
        "Site": "Plant North",
        "Zone": "Packaging",
        "Sensor": "sensor-north-1",
        "PurdueLayer": "ProcessControl",
        "Type": "iotdevice",
    },
]
PROPERTIES = {
    "isNew": "True",
    "SensorId": "sensor-north-1",
    "DeviceId": "plc-7-id",
    "Protocol": "Modbus",
    "Port": "502",
    "Category": "Unauthorized programming",
    "SourceDevice": "Laptop 3",
    "SourceDeviceAddress": "10.7.0.99",
    "DestinationDevice": "PLC 7",
    "DestinationDeviceAddress": "00:00:5e:00:53:07",
    "AlertManagementUri": "https://example.com/iot/alerts/77",
}


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "TimeGenerated": "2026-03-04T10:20:00.1234567Z",
        "DisplayName": "Unauthorized PLC Programming",
        "AlertName": "Unauthorized PLC Programming",
        "AlertSeverity": "High",
        "Description": "A device that was never seen to program wrote to a PLC.",
        "ProviderName": "IoTSecurity",
        "VendorName": "Microsoft",
        "VendorOriginalId": "aaaaaaaa-7777-4222-8333-444455556666",
        "SystemAlertId": "bbbbbbbb-7777-4222-8333-444455556666",
        "AlertType": "IoT_UnauthorizedPLCProgramming",
        "IsIncident": 0,
        "StartTime": "2026-03-04T09:50:00.5Z",
        "EndTime": "2026-03-04T10:05:00Z",
        "ProcessingEndTime": "2026-03-04T10:19:59.1Z",
        "RemediationSteps": '["Ask the plant."]',
        "ResourceId": HUB,
        "ExtendedProperties": encode(PROPERTIES).decode(),
        "Entities": encode(ENTITIES).decode(),
        "SourceSystem": "Detection",
        "WorkspaceSubscriptionId": WORKSPACE_SUBSCRIPTION,
        "ProductName": "Azure Security Center for IoT",
        "ProductComponentName": "POLICY_VIOLATION",
        "AlertLink": "https://portal.azure.com/#view/iot/alert/77",
        "Status": "New",
        "CompromisedEntity": "PLC 7",
        "Tactics": "Persistence",
        "Techniques": '["T0839"]',
        "_ItemId": "cccccccc-7777-4222-8333-444455556666",
        "Type": "SecurityAlert",
        "TenantId": "22222222-0000-4000-8000-000000000002",
    }
    return record | overrides
