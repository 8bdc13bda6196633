"""Content store, layers, snapshots, pack and unpack. Snapshots are described here and mounted elsewhere."""
