"""The client of image registries: OCI distribution-spec 1.1 and Docker's registry API V2. It knows no store.

Everything here blocks and is run in threads. What is received is counted and hashed by the caller as it
comes; documents are checked here against the digest that they were asked for by.
"""
