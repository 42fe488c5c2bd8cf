"""Shared by the proofs of the plugin platform: a staged tree with its kit, plugins built from it, a core that loads them."""

import json
import os
import shutil
import subprocess
import time

import show

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def staged():
    """A staged tree with its kit; the proofs run its programs from then on. CM_DIST names one that is there already."""
    if show.DIST:
        show.BIN = os.path.join(show.DIST, "bin")
        return show.DIST
    dist = os.path.join(show.folder("cm-stage-"), "dist")
    for script, target in ((".make/stage", dist), (".make/sdk", os.path.join(dist, "sdk"))):
        subprocess.run([os.path.join(ROOT, script), target], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=600)
    show.BIN = os.path.join(dist, "bin")
    return dist


def built(dist, source):
    """A copy of a plugin's folder, built from the staged kit; answers the path of its NAME.so."""
    folder = os.path.join(show.folder("cm-plugin-"), os.path.basename(source))
    # Its neighbours come along: a shared header may lie beside it.
    shutil.copytree(os.path.dirname(source), os.path.dirname(folder), dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("build", "*.so"))
    subprocess.run(["make", f"SDK={os.path.join(dist, 'sdk')}"], cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=600)
    return os.path.join(folder, next(name for name in os.listdir(folder) if name.endswith(".so")))


def drop(core, path):
    """Puts a plugin into the running core's directory, beside its name first."""
    directory = os.path.join(core.data, "plugins")
    waiting = os.path.join(directory, "." + os.path.basename(path) + ".new")
    shutil.copyfile(path, waiting)
    os.chmod(waiting, 0o644)
    os.rename(waiting, os.path.join(directory, os.path.basename(path)))
    return time.monotonic()


def wait_for_route(core, path, begin, seconds=20):
    """Seconds from `begin` until the API document has this path."""
    while time.monotonic() - begin < seconds:
        if path in core.get("/openapi.json")["paths"]:
            return time.monotonic() - begin
        time.sleep(0.02)
    states = json.dumps(core.get("/api/v1/plugins"))
    raise TimeoutError(f"{path} is not in /openapi.json after {seconds} s; the core says {states}")
