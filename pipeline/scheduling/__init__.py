"""Who runs next and how much: pure, synchronous, time as an argument."""
