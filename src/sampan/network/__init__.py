"""Networks of containers on this host: bridges, addresses, firewall, name resolution files."""

from sampan.network.bridge import Plan
from sampan.network.bridges import Bridges

__all__ = ["Bridges", "Plan"]
