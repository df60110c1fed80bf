"""Decoder language models: one decoder whose variants are fields of ModelConfig."""
