"""Regressors: from mixtures and their measured losses to a prediction with a spread."""
