"""What is inside files: reading ahead, writing, flush plans, chunk cache, journal. Knows store/, never tree/ or FUSE."""
