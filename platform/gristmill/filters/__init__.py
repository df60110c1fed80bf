"""Filters: column batches in, a verdict for each row out. One file each."""
