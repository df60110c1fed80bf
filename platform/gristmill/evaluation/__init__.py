"""Zero-shot tasks, benchmarks, and submissions that anybody can check offline."""
