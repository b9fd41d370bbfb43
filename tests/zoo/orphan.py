from scheduler.plugin import Plugin

PLUGIN = Plugin(id="orphan", version="1.0", name="Orphan", description="", tasks=(), requires=("nobody",))
