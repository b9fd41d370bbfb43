"""Where allowed plugins are, found without importing anything of them.

A name of NAVKEEPER_PLUGINS is one of SHIPPED, an entry point of the group navkeeper.plugins, or a module.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NamedTuple

from core.errors import PluginUnavailable
from scheduler.plugin import Plugin

GROUP = "navkeeper.plugins"
ATTRIBUTE = "PLUGIN"
# Name -> module; allowed like any other.
SHIPPED = {"holdings": "scheduler.holdings_plugin", "market": "scheduler.market_plugin"}


class Source(NamedTuple):
    """`stamp` changes with the distribution's version and with the module's files."""

    name: str
    module: str
    attribute: str
    origin: str
    stamp: str


def find(name: str) -> Source:
    """Raises PluginUnavailable where there is no such thing, or more than one."""
    if name in SHIPPED:
        return _source(name, SHIPPED[name], ATTRIBUTE, "shipped", "")
    offered = [point for point in _offered() if point.name == name]
    distributions = sorted({_distribution(point) for point in offered})
    if len(distributions) > 1:
        several = " and ".join(distributions)
        raise PluginUnavailable(f"{several} both offer a plugin {name!r}: uninstall one; neither is loaded")
    if offered:
        point = offered[0]
        return _source(name, point.module, point.attr or ATTRIBUTE, distributions[0], distributions[0])
    return _source(name, name, ATTRIBUTE, f"module {name}", "")


def offered_names() -> list[str]:
    """What could be allowed: shipped, or offered by an installed distribution."""
    return sorted({*SHIPPED, *(point.name for point in _offered())})


def load(source: Source) -> Plugin:
    """Import it: only in a process of its own. Raises what its code raises, PluginUnavailable where it offers none."""
    found = getattr(importlib.import_module(source.module), source.attribute, None)
    if not isinstance(found, Plugin):
        wanted = f"{source.attribute} = scheduler.plugin.Plugin(…)"
        raise PluginUnavailable(f"{source.module} has no {wanted}, but {type(found).__name__}")
    return found


def _offered() -> Iterator[EntryPoint]:
    importlib.invalidate_caches()
    yield from entry_points(group=GROUP)


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "?"


def _source(name: str, module: str, attribute: str, origin: str, version: str) -> Source:
    importlib.invalidate_caches()
    spec = _spec(module)
    if spec is None:
        raise PluginUnavailable(
            f"there is no module {module!r} for {name!r}: install it where NavKeeper is installed, "
            "or put its folder on PYTHONPATH"
        )
    return Source(name, module, attribute, origin[:200], f"{version} {_changed(spec)}".strip()[:200])


def _spec(module: str) -> ModuleSpec | None:
    """As importlib.util.find_spec, which would import the packages above."""
    parts = module.split(".")
    path = None
    spec = None
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        finders = (finder.find_spec(name, path) for finder in sys.meta_path)
        spec = next((found for found in finders if found is not None), None)
        if spec is None:
            return None
        path = spec.submodule_search_locations
        if path is None and length < len(parts):
            return None
    return spec


def _changed(spec: ModuleSpec) -> str:
    """Of a package: of the newest file below it."""
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = [path for folder in folders for path in folder.rglob("*.py")] or [Path(spec.origin or "")]
    times = [path.stat().st_mtime_ns for path in files if path.exists()]
    return f"{max(times, default=0)}.{len(files)}"
