"""The wire contract: what crosses Kafka, as models and bytes. Imports neither a tensor library nor a Kafka client."""
