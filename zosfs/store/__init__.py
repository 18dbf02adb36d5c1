"""The object store: the only room that knows boto3, HTTP, S3 errors and ZOS's extensions."""
