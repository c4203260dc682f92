import subprocess

import pytest


@pytest.fixture(scope="session")
def redis_socket(tmp_path_factory):
    directory = tmp_path_factory.mktemp("redis")
    socket = str(directory / "redis.sock")
    arguments = ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", str(directory)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
        for line in server.stdout:
            if "ready to accept connections" in line.lower():
                break
        yield socket
        server.terminate()
