"""Where NAVs come from."""
