"""Settings, default jobs, rule thresholds, logging and translations. Read by the entry points only."""
