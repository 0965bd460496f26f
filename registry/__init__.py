"""The store of Wardrobe: adapters, versions, aliases and what is known about them, in plain files."""

from registry.store import Registry
from registry.views.view import AdapterView, View
from registry.watcher import Watcher

__all__ = ["AdapterView", "Registry", "View", "Watcher"]
