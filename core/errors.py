"""Every error NavKeeper raises on purpose, with a stable code and whether trying again can help."""

from __future__ import annotations


class NavKeeperError(Exception):
    """An error whose message may be shown to the operator: it says what, why and what to do.

    `code` is stable English for logs, JSON and clients; `retry` says whether the same call may
    succeed later without anybody changing anything.
    """

    code = "error"
    retry = False


class SourceError(NavKeeperError):
    """The source of NAVs did not give what was asked for."""

    code = "source_error"


class SourceUnavailable(SourceError):
    """No usable answer: no connection, time-out, server error, refusal or a truncated reply."""

    code = "source_unavailable"
    retry = True


class SourceChanged(SourceError):
    """The reply came through but its format is not the known one. Nothing of it may be staged."""

    code = "source_changed"


class SourceRefused(SourceError):
    """The source knows who we are and will not serve us: a wrong token, a missing permission."""

    code = "source_refused"


class UnknownFund(SourceError):
    """The source (or our own fund list) has no fund of this code."""

    code = "unknown_fund"


class DatabaseUnavailable(NavKeeperError):
    """The database cannot be reached or refused us."""

    code = "database_unavailable"
    retry = True


class CacheUnavailable(NavKeeperError):
    """What the cache keeps cannot be read or written."""

    code = "cache_unavailable"
    retry = True


class SchemaOutdated(NavKeeperError):
    """The database's schema is not the one this version needs."""

    code = "schema_outdated"


class NotReady(NavKeeperError):
    """A step was asked for before what it needs exists (no batch to validate, no NAVs to measure)."""

    code = "not_ready"


class NotPublished(NotReady):
    """No fund has published for the business date yet. Later this evening some will have."""

    code = "not_published"
    retry = True


class BatchRejected(NavKeeperError):
    """A whole batch failed a gate; nothing of it was merged."""

    code = "batch_rejected"


class EventRefused(NavKeeperError):
    """An event that is not of its topic: an unknown topic, other keys, a value of the wrong kind, too long."""

    code = "event_refused"


class UsageError(NavKeeperError):
    """The operator asked for something that makes no sense; the message says what would."""

    code = "usage"


class JobRefused(UsageError):
    """The definition of a job is wrong; `field` is the key meant, the message says what it may be.

    `conflict`: a code of its own where not the definition is wrong, but another job is in the way.
    """

    code = "job_refused"

    def __init__(self, field: str, message: str, job: str | None = None, *, conflict: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.job = job
        self.conflict = conflict


class UnknownJob(UsageError):
    """There is no job of this name."""

    code = "unknown_job"


class JobChanged(UsageError):
    """Somebody else has changed the job since it was looked at; look again."""

    code = "job_changed"


class ConfigurationError(NavKeeperError):
    """A setting or configuration file is wrong; names the key, the value and what is allowed."""

    code = "configuration"


class AlreadyRunning(NavKeeperError):
    """Another process holds what we need; the message names it."""

    code = "already_running"


class ClaimLost(NavKeeperError):
    """This run was declared dead or cancelled meanwhile; its transaction was rolled back."""

    code = "claim_lost"


class LeadershipLost(NavKeeperError):
    """Another daemon leads meanwhile; our transaction was rolled back."""

    code = "leadership_lost"


class ClusterUnavailable(NavKeeperError):
    """The cluster's scheduler or its workers cannot be reached, or are gone."""

    code = "cluster_unavailable"
    retry = True


class ClusterMismatch(NavKeeperError):
    """A worker of the cluster is of another version, or looks at another database."""

    code = "cluster_mismatch"


class NoDaemon(NavKeeperError):
    """Nobody is there to carry a command out, or nobody did in time."""

    code = "no_daemon"
    retry = True


class BackupUnusable(NavKeeperError):
    """A backup is damaged, or does not hold what its manifest says."""

    code = "backup_unusable"


class ToolMissing(NavKeeperError):
    """A program of the database's maker is not installed; the message names it."""

    code = "tool_missing"


class StoreUnavailable(NavKeeperError):
    """A folder, or the storage for copies of backups, did not take a file."""

    code = "store_unavailable"
    retry = True


class BadResult(NavKeeperError):
    """A task returned what is no result."""

    code = "bad_result"


class PluginUnavailable(NavKeeperError):
    """A plugin is not there, not allowed, not enabled or broken; the message says which."""

    code = "plugin_unavailable"


class PluginDisabled(PluginUnavailable):
    """Somebody has not switched the plugin on, or has switched it off."""

    code = "plugin_disabled"
