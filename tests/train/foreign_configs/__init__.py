"""How many configs of other trainers are imported, and how many of these pass `train check`: a measurement.

`python -m tests.train.foreign_configs FOLDER…`: FOLDER holds the YAML files of one collection.
"""
