"""From an OCI runtime spec to a running process: the asynchronous side of zygote and keepers."""
