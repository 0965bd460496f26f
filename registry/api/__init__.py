"""What may be asked of a wardrobe: documents, and the same questions on a root or over HTTP."""
