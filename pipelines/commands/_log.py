"""What commands that run a pipeline log, and what they leave out."""

from __future__ import annotations

import logging

__all__ = ["set_up"]


def set_up() -> None:
    """Warnings to standard error. The SDK's own are left out (its failures are told by the reader,
    once and in one line), and Beam's about Google's libraries, which nobody here needs."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("azure").setLevel(logging.CRITICAL)
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: not str(record.msg).startswith("apitools not found"))
