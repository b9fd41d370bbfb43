"""Plugins with one fault each, and a sound one: what scheduler.plugin_check and the runner must bear."""
