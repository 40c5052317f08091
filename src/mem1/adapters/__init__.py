"""Our episodes and our learning inside the training systems of others."""
