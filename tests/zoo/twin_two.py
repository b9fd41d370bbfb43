from scheduler.plugin import Plugin

PLUGIN = Plugin(id="twins", version="2.0", name="Two", description="", tasks=())
