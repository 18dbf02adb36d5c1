"""Which names exist: inodes, directory listings, attributes, names and keys. Knows store/, never content/ or FUSE."""
