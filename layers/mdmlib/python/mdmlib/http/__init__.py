"""API Gateway on one side, services on the other: the device edge and the admin edge."""
