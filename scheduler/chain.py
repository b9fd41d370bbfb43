"""Pure decisions on runs that need other runs."""

from __future__ import annotations

from datetime import datetime, timedelta

from scheduler.job import DONE_WELL, PENDING, Job, RunStatus

Decision = tuple[RunStatus, str | None]


def decide(job: Job, queued_at: datetime, upstream: dict[str, RunStatus | None], now: datetime) -> Decision:
    """What becomes of a WAITING or BLOCKED run of `job`, given the state of each job it needs.

    `upstream`: the state of the run that counts for the same business date, None if there is none.
    A failure blocks; a later success of the failed run releases. Waiting ends after job.wait_hours.
    """
    late = now - queued_at > timedelta(hours=job.wait_hours)
    for need, status in upstream.items():
        if status is RunStatus.SKIPPED:
            return RunStatus.SKIPPED, f"{need} was skipped"
    for need, status in upstream.items():
        if status is not None and status not in DONE_WELL and status not in PENDING:
            blocked = f"{need} is {status.value}"
            return (
                (RunStatus.SKIPPED, f"{blocked} after {job.wait_hours:g} h")
                if late
                else (RunStatus.BLOCKED, blocked)
            )
        if status is RunStatus.BLOCKED and not late:
            return RunStatus.BLOCKED, f"{need} is BLOCKED"
    waiting = [need for need, status in upstream.items() if status not in DONE_WELL]
    if not waiting:
        return RunStatus.QUEUED, None
    if late:
        return RunStatus.SKIPPED, f"{waiting[0]} did not finish within {job.wait_hours:g} h"
    return RunStatus.WAITING, f"waiting for {', '.join(waiting)}"
