"""The machinery: when tasks run and what came of it. Knows NAVs only through scheduler.tasks."""
