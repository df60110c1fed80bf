"""Evaluation of language models: loss by domain, a trigram beside it, the harness, probes."""
