"""The domain: NAVs. Knows nothing of jobs, runs or clocks."""
