"""Apple's wire formats, pure: no AWS, no HTTP, no clock."""
