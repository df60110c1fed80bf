"""Functions that return job configs, and the command table."""
