"""Models that read text and write none: embeddings, classes, scores. `engine` is the entrance, `loading` makes one of a folder."""
