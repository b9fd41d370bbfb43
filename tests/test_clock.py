"""The clock that proofs move: a file that is read at every call."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from config.settings import Settings
from core.errors import ConfigurationError
from core.trading_calendar import SHANGHAI
from scheduler.clock import clock_from


def test_the_clock_file_is_read_at_every_call(tmp_path: Path) -> None:
    path = tmp_path / "now"
    path.write_text("2026-01-28T19:00:00+08:00\n")
    clock = clock_from(Settings.model_construct(clock_file=path))
    assert clock() == datetime(2026, 1, 28, 19, 0, tzinfo=SHANGHAI)
    path.write_text("2026-01-28T11:00:01+00:00")
    assert clock() == datetime(2026, 1, 28, 19, 0, 1, tzinfo=SHANGHAI)
    assert clock_from(Settings.model_construct(clock_file=None))().utcoffset() == timedelta(0)


@pytest.mark.parametrize("text", ["2026-01-28 19:00:00", "tomorrow", ""])
def test_a_wrong_clock_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "now"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="NAVKEEPER_CLOCK_FILE"):
        clock_from(Settings.model_construct(clock_file=path))()
