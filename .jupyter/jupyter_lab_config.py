"""What `make lab` tells JupyterLab; a user's own configuration counts as well."""

from cmiclib.book.notebooks import keep_script

c = get_config()  # noqa: F821 (Jupyter defines it)
c.ServerApp.root_dir = "."
c.ServerApp.tornado_settings = {"websocket_max_message_size": 40_000_000}  # a large photo in the query browser
c.LabApp.default_url = "/lab/tree/book/intro.ipynb"
c.LabApp.news_url = None
# The file browser lists a chapter once: its notebook. The script beside it is saved with it.
c.ContentsManager.hide_globs = ["[01][0-9]_*.py", "intro.py", "__pycache__", "*.pyc", "*.lock"]
c.ContentsManager.pre_save_hook = keep_script
