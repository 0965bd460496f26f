"""Workers: they take fine-tuning jobs in hand, and train each in a process of its own."""
