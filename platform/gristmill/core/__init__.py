"""What every part stands on: configs, run folders, storage, plug-ins. Imports neither torch nor ray."""
