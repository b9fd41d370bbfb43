"""`main.py cache` as an operator types it, and what /metrics says of the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from config.settings import load_settings
from core.errors import ConfigurationError
from scheduler.cache import database_cache
from scheduler.overview import observer_engine
from tests.api_site import app_of
from tests.daemon import DaemonProcess
from tests.example_night import NOW
from tests.test_command_line import in_english, lines, refused


@pytest.fixture
def used(engine: Engine) -> Engine:
    """Two summaries: one asked for three times, the other once."""
    cache = database_cache(observer_engine(engine.url))
    for key in ("a", "a", "a", "b"):
        cache.get("summaries", key, lambda: "x" * 90, tags=(f"of_{key}",), now=NOW)
    cache.close()
    return engine


def test_the_cache_is_listed_and_cleared(used: Engine, tmp_path: Path) -> None:
    shell = in_english(DaemonProcess(used, tmp_path, "http://127.0.0.1:9", NOW))
    found = {record["kind"]: record for record in lines(shell.main("cache", "--json"))}
    assert found["summaries"] == {
        "kind": "summaries",
        "fresh_seconds": 3600,
        "entries": 2,
        "bytes": 2 * (90 + 2 + 8),
        "memory_hits": 2,
        "shared_hits": 0,
        "stale": 0,
        "misses": 2,
        "computed": 2,
        "hit_rate": 0.5,
    }
    assert (found["news"]["entries"], found["news"]["hit_rate"]) == (0, None)
    rows = {line.split()[0]: line.split() for line in shell.main("cache").stdout.splitlines()}
    assert rows["summaries"][-8:] == ["2", "0", "2", "0", "0", "2", "2", "50.0%"]
    assert shell.main("cache", "clear", "--tag", "of_a").stdout == "forgotten: 1 entries\n"
    assert lines(shell.main("cache", "clear", "--kind", "news", "--json")) == [{"removed": 0}]
    assert lines(shell.main("cache", "clear", "--json")) == [{"removed": 1}]
    said = refused(shell.main("cache", "clear", "--kind", "gossip"), 2)
    assert said.startswith("cache: the cache has no kind 'gossip'; there are technical, ")
    assert shell.main("cache", "clear", "--kind", "news", "--tag", "x").returncode == 2


def test_metrics_say_how_often_it_was_of_use(used: Engine) -> None:
    text = app_of(used).test_client().get("/metrics?format=prometheus").text
    for layer, outcome, number in (
        ("memory", "hit", 2),
        ("memory", "miss", 2),
        ("database", "miss", 2),
        ("database", "computed", 2),
    ):
        labels = f'kind="summaries",layer="{layer}",outcome="{outcome}"'
        assert f"navkeeper_cache_requests_total{{{labels}}} {number}.0" in text


def test_the_address_of_redis_is_checked_and_its_password_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVKEEPER_CACHE_URL", "redis://:a-long-pass%40word@host:6379/0")
    found = load_settings()
    assert {"a-long-pass%40word", "a-long-pass@word"} <= set(found.secrets())
    assert "a-long" not in repr(found)
    monkeypatch.setenv("NAVKEEPER_CACHE_URL", "memcached://:a-long-password@host")
    with pytest.raises(ConfigurationError) as error:
        load_settings()
    assert "NAVKEEPER_CACHE_URL = (hidden) is not allowed: the address of a Redis server" in str(error.value)
    assert "a-long" not in str(error.value)
