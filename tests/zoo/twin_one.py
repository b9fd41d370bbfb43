from scheduler.plugin import Plugin

PLUGIN = Plugin(id="twins", version="1.0", name="One", description="", tasks=())
