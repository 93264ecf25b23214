"""The log behind one seam: Kafka, or SQLite on one machine."""
