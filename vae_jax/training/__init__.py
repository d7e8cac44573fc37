"""Records in, a trained model in checkpoints out."""
