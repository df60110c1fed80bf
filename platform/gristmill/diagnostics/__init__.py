"""Read-only probes of a language model, one file each; base.py is their contract."""
