"""Feed-forward kinds, one file each."""
