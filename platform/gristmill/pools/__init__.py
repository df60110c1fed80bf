"""Pools of image-text pairs: read, filter, score, inspect, reshard."""
