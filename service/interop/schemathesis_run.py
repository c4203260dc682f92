"""Runs schemathesis against the service in development mode, by the description that it serves.

Usage: python schemathesis_run.py [path of approov-web-service]
"""

import json
import os
import pathlib
import subprocess
import sys
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "unsupported_method",
]


def run(environment, operations, url, selects, paths):
    """Runs schemathesis against one listener, with the paths that are or are not on it."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{operations}/openapi.json",
        "--url", url,
        *(argument for path in paths for argument in (selects, path)),
        "--checks", ",".join(CHECKS),
        "--max-examples", os.environ.get("EXAMPLES", "150"),
        "--seed", "1",
        "--workers", "2",
        "--request-timeout", "120",
        "--suppress-health-check", "all",
        "--no-color",
    ]
    return subprocess.run(command, env=environment, check=False).returncode


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else HERE.parent.parent / "target/debug/approov-web-service"
    service = subprocess.Popen(
        [binary, "serve", "--dev", "--json", "--quiet", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        announced = service.stdout.readline()
        url = json.loads(announced)["url"]
        operations = json.loads(announced)["operations"]
        environment = {
            **os.environ,
            "SERVICE": announced,
            "PYTHONPATH": str(HERE),
            "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        }
        # Paths with servers of their own are on the operations listener, all others on the public one.
        with urllib.request.urlopen(f"{operations}/openapi.json", timeout=120) as response:
            paths = json.load(response)["paths"]
        private = [path for path, item in paths.items() if "servers" in item]
        assert 0 < len(private) < len(paths), private
        code = run(environment, operations, url, "--exclude-path", private)
        code |= run(environment, operations, operations, "--include-path", private)
        with urllib.request.urlopen(f"{operations}/metrics", timeout=120) as response:
            counts = [line for line in response.read().decode().splitlines() if line.startswith("approov_requests_total")]
        print("\n".join(counts))
        # Generated requests that never get past the door would show nothing.
        for outcome in ("token", "failed-check", "refused", "nonce"):
            if not any(f'outcome="{outcome}"' in line for line in counts):
                sys.exit(f"no generated request ended as {outcome}")
        return code
    finally:
        service.terminate()
        service.wait(timeout=120)


sys.exit(main())
