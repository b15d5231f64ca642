"""Where documents come from: files, object stores, standard input, an index."""
