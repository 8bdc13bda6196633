"""Volumes: directories of users' data that outlive containers."""

from sampan.volumes.local import LocalVolumes
from sampan.volumes.records import VolumeRecord

__all__ = ["LocalVolumes", "VolumeRecord"]
