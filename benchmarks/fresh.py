"""Functions in a process of their own, with nothing of what ran before in its allocator."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any

import torch

Tell = Callable[[str], None]


def call(function: Callable[..., Any], *arguments: Any, tell: Tell | None = None) -> Any:
    """function(*arguments) there, on as many threads as here; its last argument is `tell`, if there is one.

    Nothing else goes there: no choice of a backend or of instructions. Function, arguments and result are
    pickled. BrokenProcessPool if the process ended without an answer.
    """
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    with ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(sender,)) as pool:
        found = pool.submit(_there, function, arguments, torch.get_num_threads(), tell is not None)
        sender.close()  # it is there now; here it would keep the pipe open when the process ends
        with receiver, suppress(EOFError):
            while not found.done() or receiver.poll():
                if receiver.poll(0.1):
                    text = receiver.recv()  # EOFError if the process has ended
                    if tell is not None:
                        tell(text)
        return found.result()


def _context() -> BaseContext:
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        # a server that has imported torch and run nothing is forked for each call
        context.set_forkserver_preload([f"{__package__}.runner"])
    return context


def _begin(sender: Connection) -> None:
    global _sender
    _sender = sender


def _there(function: Callable[..., Any], arguments: tuple[Any, ...], threads: int, told: bool) -> Any:
    torch.set_num_threads(threads)
    return function(*arguments, *((_sender.send,) if told else ()))


_sender: Connection
