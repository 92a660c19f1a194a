"""Where batches come from: data sets on disk, FFCV files, augmentation and loaders."""
