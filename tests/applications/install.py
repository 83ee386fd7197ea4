"""Installs what an application needs from the registries, into the cache."""

import os
import shutil
import subprocess
from pathlib import Path

from processes import Failed

CACHE = Path(os.environ["HOMING_APPLICATIONS_CACHE"])


def _run(what, command, **options):
    print(f"installing {what}", flush=True)
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=900, **options)
    if done.returncode:
        raise Failed(f"{what} cannot be installed: {(done.stderr or done.stdout).strip()[-400:]}")


def python(name, *packages):
    """The interpreter of a virtual environment of its own that has `packages`."""
    folder = CACHE / "python" / name
    interpreter = folder / "bin/python"
    stamp, wanted = folder / "installed", "\n".join(packages)
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        _run(f"Python for {name}", ["python3", "-m", "venv", folder])
        _run(", ".join(packages),
             [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
        stamp.write_text(wanted)
    return interpreter


def node(name, *packages):
    """The folder whose node_modules have `packages`."""
    debian("node", "nodejs", shutil.which("node"))
    debian("npm", "npm", shutil.which("npm"))
    folder = CACHE / "node" / name
    stamp, wanted = folder / "installed", "\n".join(packages)
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true}\n')
        _run(", ".join(packages), ["npm", "install", "--no-audit", "--no-fund", *packages], cwd=folder)
        stamp.write_text(wanted)
    return folder


def debian(what, package, present):
    """Installs `package` unless it is `present`; only as root on Debian or Ubuntu."""
    if present:
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise Failed(f"please install {what} (Debian: {package})")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run("the list of packages", ["apt-get", "update", "-q"], env=environment)
    _run(package, ["apt-get", "install", "-qy", "--no-install-recommends", *package.split()], env=environment)


def program(name, package):
    """The path of a program that a Debian package has."""
    debian(name, package, shutil.which(name))
    return shutil.which(name)
