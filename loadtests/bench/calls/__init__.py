"""Tool calls: trained, then exact held-out calls offline and served."""
