"""What every part stands on: configs, run folders, storage. Imports neither torch nor ray."""
