"""A local HTTP server that speaks the upstream's bytes, from a simulated or a recorded market."""

from __future__ import annotations

from core.standin.market import Event, Fund, Market
from core.standin.recorded import recorded_market
from core.standin.server import StandinServer
from core.standin.simulated import simulated_market

__all__ = ["Event", "Fund", "Market", "StandinServer", "recorded_market", "simulated_market"]
