"""What was trained, in the forms that others read: a plain LoRA, or a merged model."""
