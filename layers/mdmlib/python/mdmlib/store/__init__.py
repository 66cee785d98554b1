"""DynamoDB, S3 and Secrets Manager: one file per collection."""
