"""What runs? Options and configuration composed into a service."""
