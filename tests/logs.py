"""What Kern logs, apart from what asyncio logs of an earlier test's task that is collected meanwhile."""

from __future__ import annotations

import pytest


def kern_messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages of Kern's own loggers."""
    return [record.getMessage() for record in caplog.records if record.name.partition(".")[0] == "kern"]
