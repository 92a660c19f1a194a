"""Where batches come from: data sets on disk, FFCV files, augmentation and loaders."""

LOADER_DECIDED = "RESEARCH_LOADER"  # environment: what a launcher chose for loader=auto, so that no rank chooses again
