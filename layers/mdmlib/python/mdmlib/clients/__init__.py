"""Clients of services that are not AWS: APNs, customers' webhooks."""
