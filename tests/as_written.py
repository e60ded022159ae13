"""The commands of the pages without the seconds that their imports take, and with trainings that are short.

`python as_written.py SOCKET` is a process that has imported everything and forks once per command; `CLIENT` is what
stands in `.venv/bin` and hands it what was typed. A command gets the options of `SHORTER`, which a reader could type.
"""

import os
import signal
import socket
import sys
import traceback

CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    said = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(said).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(said)
    sys.exit(int(server.recv(4) or b"99"))
"""


TINY = ["--seeds", "1", "--epochs", "1", "--max-windows", "20"]
ONE_CELL = (
    "--models resnet1d --protocols subject --folds 0 --of-folds 2 --epoch-factors 1 --objectives smoothing".split()
)
SHORTER = {  # command -> options that every call gets, and options that it gets where it has none
    "study": (
        [*TINY, *ONE_CELL, "--workers", "1", "--no-report"],
        dict(datasets=["uci_har", "wisdm", "dsads"], alphas=["0", "0.01", "0.1"]),
    ),
    "run": ([*TINY, "--of-folds", "2"], dict(protocol=["subject"], out=["runs/quick"])),
    "advise": (
        [*TINY, "--folds", "2", "--workers", "1"],
        dict(alphas=["0.02", "0.1"], models=["resnet1d", "moderntcn"]),
    ),
    "papermill": ("-p seeds 1 -p epochs 1 -p max_windows 20 --no-progress-bar".split(), {}),
}


def shorter(name, arguments):
    "What was typed, and the options of `SHORTER`."
    always, absent = SHORTER.get(name if name == "papermill" else " ".join(arguments[:1]), ([], {}))
    more = [[f"--{option}", *values] for option, values in absent.items() if f"--{option}" not in arguments]
    return [*arguments, *always, *sum(more, [])]


def command(name, arguments):
    "Do what the command would do; its exit code."
    if name == "har-ls":
        from har_ls.cli import main

        return main(arguments)
    if name == "papermill":
        from papermill.cli import papermill

        return papermill(arguments, standalone_mode=False) and 1
    exec(compile(sys.stdin.read(), "<page>", "exec"), {"__name__": "__main__"})
    return 0


def serve_one(connection):
    "In a fork: take over folder, environment and output of the client, then be the command."
    import json

    head, (stdin, stdout, stderr), *_ = socket.recv_fds(connection, 4, 3)
    said = b""
    while len(said) < int.from_bytes(head, "big"):
        said += connection.recv(65536)
    sys.argv, folder, environment = json.loads(said)
    for number, fd in enumerate((stdin, stdout, stderr)):
        os.dup2(fd, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code, name = 1, os.path.basename(sys.argv[0])
    try:
        code = command(name, shorter(name, sys.argv[1:]))
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(str(code or 0).encode())
    connection.close()
    os._exit(0)


def serve(address):
    import distributed  # noqa: F401
    import papermill  # noqa: F401

    import har_ls.evidence.report
    import har_ls.runs.execution
    import har_ls.runs.kernel  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                serve_one(connection)
            connection.close()


if __name__ == "__main__":
    serve(sys.argv[1])
