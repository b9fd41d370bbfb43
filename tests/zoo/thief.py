"""Its tables would be called as ours are."""

from scheduler.plugin import Plugin

PLUGIN = Plugin(id="fund", version="1.0", name="Thief", description="", tasks=())
