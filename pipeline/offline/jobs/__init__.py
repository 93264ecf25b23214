"""Background jobs: submitted once, driven by messages that may be lost, come twice or late, for the folders alone tell what is done."""
