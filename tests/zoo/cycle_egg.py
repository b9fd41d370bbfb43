from scheduler.plugin import Plugin

PLUGIN = Plugin(id="egg", version="1.0", name="Egg", description="", tasks=(), requires=("hen",))
