"""The processes: composition roots that read settings, build the parts and run them."""
