"""Ours as an OCI runtime with runc's command line: ``sampan oci create|start|…``; needs no daemon."""
