"""Outbound: what a sink is sent, one pure function a file: Alert → bytes."""
