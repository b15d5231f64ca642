"""The page that compares two rankings: its files, and its narrow way to the cluster, on the operators' listener."""
