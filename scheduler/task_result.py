"""What a task returned becomes the end of its run, in one transaction; what is no result is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from core.errors import BadResult
from scheduler.plugin import PARTIAL, SKIPPED, SUCCESS, TaskResult

if TYPE_CHECKING:
    from scheduler.run_context import RunContext

LONGEST = 64_000  # bytes of JSON
MOST_RECORDS = 2**31 - 1


def end_with(context: RunContext, task: str, returned: Any) -> None:
    """None is right where the task ended its run itself. Raises BadResult."""
    if context.outcome is not None:
        if returned is not None:
            context.log.warning("%s ended its run itself: what it returned is left out", task)
        return
    if not isinstance(returned, TaskResult):
        raise BadResult(
            f"{task} returned {type(returned).__name__}, which is no TaskResult, and did not call context.commit()"
        )
    data = _checked(task, returned)
    with context.commit() as commit:
        if returned.write is not None:
            returned.write(commit.connection)
        reason = returned.reason and context.clean(returned.reason)
        commit.end(returned.status, returned.records, reason, data)


def _checked(task: str, result: TaskResult) -> str | None:
    """Its data as JSON, None for none."""
    records, reason = result.records, result.reason
    if not isinstance(records, int) or isinstance(records, bool) or not 0 <= records <= MOST_RECORDS:
        raise BadResult(f"{task} returned records={records!r:.100}; allowed is a whole number from 0")
    if result.status not in (SUCCESS, PARTIAL, SKIPPED):
        raise BadResult(
            f"{task} returned status={result.status!r:.100}; allowed are {SUCCESS}, {PARTIAL} and {SKIPPED}"
        )
    if reason is not None and not isinstance(reason, str):
        raise BadResult(f"{task} returned a reason that is no text, but {type(reason).__name__}")
    if result.write is not None and not callable(result.write):
        raise BadResult(f"{task} returned a write that cannot be called")
    if not isinstance(result.data, dict):
        raise BadResult(f"{task} returned data that is no dict, but {type(result.data).__name__}")
    try:
        text = json.dumps(result.data, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadResult(f"{task} returned data that is no JSON: {str(error)[:200]}") from None
    if len(text) > LONGEST:
        raise BadResult(f"{task} returned {len(text):,} bytes of data; at most {LONGEST:,} are kept")
    return text if result.data else None
