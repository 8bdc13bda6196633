"""Storage drivers: how layers become a container's root, behind one interface.

A driver is chosen by ``choice``, which tries what the host offers. Law: what is in a data root was made by
one driver, whose name the root remembers.
"""

from sampan.images.drivers.choice import choose, passed_over
from sampan.images.drivers.interface import Driver

__all__ = ["Driver", "choose", "passed_over"]
