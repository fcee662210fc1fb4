"""Runs the programs of docs/EMULATOR.md that are marked `run`, as they stand there, in the folder with `emulator.json`.

Usage: doc-snippets.py FOLDER CLIENTS FLEETMINT: the folder, where scripts/clients/install has the clients, and the binary.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

folder, clients, fleetmint = (Path(argument).resolve() for argument in sys.argv[1:])
text = (Path(__file__).resolve().parents[2] / "docs/EMULATOR.md").read_text()
snippets = re.findall(r"^```(\w+) run\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
assert snippets, "docs/EMULATOR.md has no snippet to run"
# A module finds its packages beside itself.
with tempfile.TemporaryDirectory(dir=clients) as place:
    (Path(place) / "fleetmint").symlink_to(fleetmint)
    path = os.pathsep.join([place, str(clients / "venv/bin"), os.environ["PATH"]])
    for number, (language, code) in enumerate(snippets):
        interpreter, suffix = {"python": ([sys.executable], "py"), "js": (["node"], "mjs"), "sh": (["bash", "-e"], "sh")}[language]
        program = Path(place) / f"snippet{number}.{suffix}"
        program.write_text(code)
        ran = subprocess.run(
            [*interpreter, program], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60
        )
        if ran.returncode:
            raise SystemExit(f"snippet {number} of docs/EMULATOR.md fails:\n{code}\n{ran.stdout}\n{ran.stderr}")
print(json.dumps({"snippets": len(snippets), "languages": sorted({language for language, _ in snippets})}))
