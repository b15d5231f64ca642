"""The thin endpoint that stands before the cluster."""
