"""back_up: the database as a checked file, a copy of it elsewhere, and room for the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from core.errors import StoreUnavailable, ToolMissing
from scheduler.job import RunStatus
from scheduler.task_params import Params

if TYPE_CHECKING:
    from pathlib import Path

    from config.settings import Settings
    from core.backup import Backup
    from scheduler.run_context import RunContext

MB = 1_000_000


def back_up(context: RunContext, _params: Params) -> None:
    """One backup more, and the old ones thinned out; PARTIAL where only its copy elsewhere failed."""
    from core import backup

    folder = context.settings.backups
    made = backup.make(context.engine, folder, context.now(), in_megabytes(context.progress))
    status, said = RunStatus.SUCCESS, summary(made)
    try:
        copied = copy_elsewhere(made.path, context.settings)
    except (StoreUnavailable, ToolMissing) as error:
        status, said = RunStatus.PARTIAL, f"{error.code}: {error}; the backup itself is made: {said}"
    else:
        said += f"; copied to {copied}" if copied else ""
    gone = backup.thin_out(folder, context.now())
    context.log.info("%d old backups removed", len(gone))
    with context.commit() as commit:
        commit.end(status, sum(made.manifest.counts.values()), said)


def summary(made: Backup) -> str:
    size, whole = made.path.stat().st_size, made.manifest.size
    checked = "restored on trial" if made.tried else "its text checked; the server allows no trial restore"
    return f"{made.path}, {size / MB:,.1f} MB of {whole / MB:,.1f}, {checked}"


def copy_elsewhere(path: Path, settings: Settings) -> str | None:
    """Copy a backup to where the settings say; its address, None for nowhere. Raises StoreUnavailable, ToolMissing."""
    if settings.backup_s3 is None:
        return None
    from core.object_store import Store, upload

    secret = settings.backup_s3_secret
    store = Store(
        settings.backup_s3,
        settings.backup_s3_endpoint,
        settings.backup_s3_key,
        secret.get_secret_value() if secret else None,
    )
    return upload(path, store)


def in_megabytes(progress: Callable[[int, int | None, str], None]) -> Callable[[int, str], None]:
    """Told bytes, it tells `progress` of megabytes, and not of the same one twice."""
    last = (-1, "")

    def tell(done: int, text: str) -> None:
        nonlocal last
        if (done // MB, text) != last:
            last = (done // MB, text)
            progress(done // MB, None, f"MB: {text}")

    return tell
