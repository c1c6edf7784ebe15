"""A user's own photos and meshes: a folder, lists of photos, crops of a catalogue."""
