"""The embedded OpenSearch node: assembled from Maven artifacts, started, watched and stopped."""
