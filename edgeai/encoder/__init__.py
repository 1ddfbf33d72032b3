"""Text encoders on the device: embedding models and rerankers, from text or token ids to vectors and scores."""
