"""config/jobs.toml -> jobs. A wrong file stops the program, naming job, key and value."""

from __future__ import annotations

import tomllib
from pathlib import Path

from core.errors import ConfigurationError, JobRefused
from scheduler.job import Job
from scheduler.job_definition import in_order, job_of

JOBS_FILE = Path(__file__).resolve().parents[1] / "config" / "jobs.toml"


def load_jobs(path: Path) -> dict[str, Job]:
    """Jobs by id, those needed before those that need them. Raises ConfigurationError."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None
    jobs = {}
    for name, table in document.items():
        if not isinstance(table, dict):
            raise ConfigurationError(f"{path.name}: {name} must be a table such as [{name}]")
        try:
            jobs[name] = job_of(name, table)
        except JobRefused as error:
            raise ConfigurationError(f"{path.name}: [{name}] {error}") from None
    try:
        return in_order(jobs)
    except JobRefused as error:
        raise ConfigurationError(f"{path.name}: [{error.job}] {error}") from None
