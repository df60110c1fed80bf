"""The demo: every job of the CLIP track in order, on the embedded drawings."""
