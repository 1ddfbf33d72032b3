"""What a model and a machine are worth: perplexity and throughput."""
