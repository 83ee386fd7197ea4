"""The applications, in the order in which they run."""

import importlib

_MODULES = ("express", "tomcat", "tomcat_urls", "pages", "jupyter", "web", "mcp")

APPLICATIONS = {
    application.name: application
    for module in _MODULES
    for application in importlib.import_module(f"apps.{module}").APPS
}
