"""What the engine does in a broken world. The faults are real: small disks, limits, failing devices."""
