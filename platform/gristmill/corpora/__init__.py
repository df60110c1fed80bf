"""Text corpora: named domains, token shards, mixtures, and the stream that training reads."""
