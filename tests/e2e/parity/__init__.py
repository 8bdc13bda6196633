"""What Docker's client shows of this engine, compared with what dockerd showed when it was asked the same."""
