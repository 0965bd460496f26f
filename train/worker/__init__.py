"""Workers: they take fine-tuning jobs in hand, one after the other, and train each in a process of its own."""
