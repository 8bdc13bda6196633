"""OCI documents (image and runtime) with their raw bytes, and the defaults that Docker gives them."""
