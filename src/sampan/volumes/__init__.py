"""Volumes: directories of users' data that outlive containers."""

from sampan.volumes.local import LocalVolumes, VolumeRecord

__all__ = ["LocalVolumes", "VolumeRecord"]
