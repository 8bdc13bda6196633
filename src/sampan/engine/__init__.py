"""Use cases, one module per resource: what a user does with containers, images, networks and volumes."""
