"""Methods, networks, layers and data sets from files outside this package, known while their own run is dealt with."""
