"""Clusters: files to start them from, checks of such files, plans, and jobs sent to them."""
