"""Training under Ray Train: DataComp's standard CLIP training, resumable at every checkpoint."""
