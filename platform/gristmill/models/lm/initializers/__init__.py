"""How matrices start, one file each."""
