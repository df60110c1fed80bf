"""Models. CLIP comes from open_clip."""
