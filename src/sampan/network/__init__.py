"""Networks of containers on this host: bridges, addresses, firewall, name resolution files."""

from sampan.network.addresses import Range
from sampan.network.bridge import Plan
from sampan.network.bridges import Bridges
from sampan.network.names import Names

__all__ = ["Bridges", "Names", "Plan", "Range"]
