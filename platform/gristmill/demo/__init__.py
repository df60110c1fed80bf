"""The embedded default: drawings, noise and the track that runs on them."""
