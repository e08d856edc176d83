"""Our tracker in the toolkits of others."""
