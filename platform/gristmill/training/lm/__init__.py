"""Training of language models: the step, its engines, checkpoints and the job."""
