"""What can be checked of a deployment without a cluster: render, schemas, rules across objects."""
