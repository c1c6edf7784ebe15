"""CMIC: single-image 3D shape retrieval by cross-modal instance and category contrastive learning.

A photo of an object goes in, the object's own CAD model comes first out of a gallery (Lin et al., ICCV 2021).
Data flows one way: ``sources`` → ``benchmark`` → ``train`` → ``index`` → the book in ``book/``.
"""

__version__ = "0.1.0"
