"""Named volumes of the local driver."""
