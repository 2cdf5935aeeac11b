"""How JupyterLab shows the course: `jupyter lab --config=tools/jupyterlab/config.py`."""

from pathlib import Path

here = Path(__file__).resolve().parent
c = get_config()  # noqa: F821  # traitlets gives it to a file of settings
c.LabApp.app_settings_dir = str(here)
c.LabApp.custom_css = True  # custom/custom.css
c.ServerApp.tornado_settings = {"static_custom_path": [str(here / "custom")]}
