"""Holdings of funds: orders, regular investment plans, positions. Paper only: nothing here buys anything."""
