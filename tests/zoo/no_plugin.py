PLUGIN = "demo"
