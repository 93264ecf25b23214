"""The worker's parts: transport, delivery, scheduling, engine, client and command line."""
