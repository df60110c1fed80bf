"""Work that adds columns to a pool, usually with a model on a GPU."""
