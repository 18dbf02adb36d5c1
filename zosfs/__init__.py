"""zosfs: buckets of ZOS and of any S3-compatible store as a filesystem."""

__version__ = "0.1.0"
