"""Processes that start at once: each is forked from a server that has imported torch.

For tests whose subject is a process that is killed, interrupted or left alone. The server has no
thread and no Ray; a child has the environment and the import path of the test that starts it.
"""

import atexit
import io
import multiprocessing
import os
import sys
import tempfile

IMPORTED = [
    *("torch", "optuna", "scipy.stats", "hypothesis"),
    *("nas.cli.main", "nas.cli.commands.search", "nas.searching.study"),
]


class Forked:
    """``function(*arguments)`` in a process, with the members of ``subprocess.Popen``."""

    def __init__(self, function, *arguments, cwd=None, env=None, new_session=False):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        reading, writing = context.Pipe(duplex=False)
        self._errors = tempfile.NamedTemporaryFile(suffix=".stderr")  # noqa: SIM115
        self._process = context.Process(
            target=_run,
            args=(function, arguments, writing, self._errors.name),
            kwargs={
                "cwd": os.fspath(cwd or os.getcwd()),
                "env": dict(os.environ if env is None else env),
                "new_session": new_session,
            },
        )
        self._process.start()
        writing.close()
        self.stdout = os.fdopen(os.dup(reading.fileno()))
        reading.close()

    @property
    def pid(self):
        return self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    @property
    def stderr(self):
        with open(self._errors.name) as errors:
            return io.StringIO(errors.read())

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutError(f"process {self.pid} ran for longer than {timeout} s")
        return self.returncode

    def communicate(self, timeout=None):
        """Output and errors, once all that hold the output have ended."""
        out = self.stdout.read()
        self.wait(timeout)
        return out, self.stderr.read()

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self._process.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.poll() is None:
            self.kill()
        self.wait(60)
        self.stdout.close()


def nas_command(*words, **options):
    """``nas WORDS`` in a process of its own."""
    return Forked(_main, [str(word) for word in words], **options)


def _main(words):
    from nas.cli.main import main

    sys.exit(main(words))


def _run(function, arguments, output, errors, *, cwd, env, new_session):
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    if new_session:
        os.setsid()
    with open(os.devnull) as nothing, open(errors, "w") as file:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(file.fileno(), 2)
    output.close()
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    try:
        function(*arguments)
    finally:
        # Which processes of multiprocessing leave out.
        atexit._run_exitfuncs()
        sys.stdout.flush()
