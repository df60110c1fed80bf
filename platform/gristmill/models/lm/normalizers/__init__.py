"""What attention weights are divided by (Z_i), one file each."""
