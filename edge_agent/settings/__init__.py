"""Settings: `load` reads them, `Settings` is what holds, `Effective.sources` is where each came from."""

from edge_agent.settings.broker import Broker
from edge_agent.settings.energy import Energy
from edge_agent.settings.fields import Flag, is_loopback, pairs, parse_host_port
from edge_agent.settings.gates import Gate, Source, parse_gate, parse_source
from edge_agent.settings.gateway import Client, Gateway
from edge_agent.settings.home import Home
from edge_agent.settings.keys import HIDDEN, KEYS, Key, plain
from edge_agent.settings.layers import CONFIG_VARIABLE, OTHER_VARIABLES, Effective, default_paths, load
from edge_agent.settings.model import Agent, Catalogue, Coordinator, Limits, Log, Network, Settings
from edge_agent.settings.policy import DAY_MINUTES, RESUME_BELOW_CELSIUS, Policy, Window, parse_window

__all__ = [
    "CONFIG_VARIABLE",
    "DAY_MINUTES",
    "HIDDEN",
    "KEYS",
    "OTHER_VARIABLES",
    "RESUME_BELOW_CELSIUS",
    "Agent",
    "Broker",
    "Catalogue",
    "Client",
    "Coordinator",
    "Effective",
    "Energy",
    "Flag",
    "Gate",
    "Gateway",
    "Home",
    "Key",
    "Limits",
    "Log",
    "Network",
    "Policy",
    "Settings",
    "Source",
    "Window",
    "default_paths",
    "is_loopback",
    "load",
    "pairs",
    "parse_gate",
    "parse_host_port",
    "parse_source",
    "parse_window",
    "plain",
]
