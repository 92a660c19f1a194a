"""What methods, networks, layers and data sets promise, checked on any of them; skeletons that keep these promises."""
