"""Bridges, addresses, firewall. Describes endpoints; the sandbox package plugs them in."""
