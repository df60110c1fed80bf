"""The mixture search: design mixtures, learn from their losses, propose the best."""
