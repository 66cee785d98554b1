"""What the server does, one file per capability."""
