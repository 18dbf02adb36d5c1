"""The benchmarks: the same work on zosfs and its peers, one server, cold, in one run. `python -m bench --help` says how."""
