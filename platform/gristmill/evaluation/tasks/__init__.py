"""The tasks, one file each; a benchmark names them by file stem."""
