"""How work reaches Ray: one session, and resumable maps over slices of a source."""
