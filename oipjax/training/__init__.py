"""Training a classifier or an autoencoder to the same bits."""
