"""The demonstration: a real S3 server as a child, a bucket with sample files, a mount, and a tour; one Ctrl-C undoes all."""
