"""Bucket settings, versions, presign, restore, image, search, topics. Uses store/ only."""
