from scheduler.plugin import Plugin

PLUGIN = Plugin(id="hen", version="1.0", name="Hen", description="", tasks=(), requires=("egg",))
