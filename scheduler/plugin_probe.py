"""`python -m scheduler.plugin_probe NAME FD`: import one plugin and say on FD, in one line of JSON, what it offers.

It may print, crash, hang or eat memory: who started it (plugin_check.py) loses nothing by that.
"""

from __future__ import annotations

import json
import os
import sys
from types import TracebackType
from typing import Any

from core.errors import PluginUnavailable
from scheduler.plugin import Plugin
from scheduler.plugin_limits import limit_probe
from scheduler.plugin_sources import find, load

LONGEST = 900  # letters of a reason


def manifest_of(plugin: Plugin) -> dict[str, Any]:
    """What can be known of a plugin without importing it again."""
    return {
        "id": plugin.id,
        "version": plugin.version,
        "name": plugin.name,
        "description": plugin.description,
        "requires": list(plugin.requires),
        "tasks": [
            {
                "id": task.id,
                "name": task.name,
                "description": task.description,
                "table_name": task.table_name or task.id,
                "params": task.params.model_json_schema(),
            }
            for task in plugin.tasks
        ],
        "tables": [] if plugin.tables is None else sorted(plugin.tables.tables),
        "migrations": len(plugin.migrations),
        "subscribers": [
            {"id": item.id, "topics": list(item.topics), "function": item.path} for item in plugin.subscribers
        ],
    }


def main(argv: list[str]) -> None:
    name, answers = argv[0], int(argv[1])

    def answer(found: dict[str, Any]) -> None:
        """The last that is done: no thread and no exit handler of the plugin's delays the end."""
        text = f"{json.dumps(found)}\n".encode()
        while text:
            text = text[os.write(answers, text) :]
        os._exit(0)

    def failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        at = _last_line(trace, find(name).module)
        why = str(error) if isinstance(error, PluginUnavailable) else f"{kind.__name__}: {error}"
        answer({"error": why.strip(" :")[:LONGEST] + at})

    sys.excepthook = failed
    limit_probe()
    answer({"manifest": manifest_of(load(find(name)))})


def _last_line(trace: TracebackType | None, module: str) -> str:
    """Where in the plugin it went wrong, if it was there."""
    found = ""
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] == module.partition(".")[0]:
            found = f" ({module}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
