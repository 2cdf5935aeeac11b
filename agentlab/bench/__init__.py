"""A benchmark that others can repeat: an experiment is a file, and so are its results."""
