"""`harken doctor`: what is installed, what is missing and how to get it."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
from typing import Any

from harken.core.errors import UserError
from harken.core.version import __version__


def add_commands(commands: Any) -> None:
    """Registers `doctor`; it sets `handler`."""
    p = commands.add_parser("doctor", help="what is installed, what is missing and how to get it")
    p.set_defaults(handler=doctor)


def doctor(args: argparse.Namespace) -> int:
    """What is installed, which devices there are, where the default model is, and what is missing."""
    print(f"harken {__version__}, Python {platform.python_version()}, {platform.platform()}")
    wanted = {"base": ("numpy", "scipy", "sqlalchemy", "rich"), "train": ("torch", "transformers", "peft", "gguf")}
    for extra, packages in wanted.items():
        for package in packages:
            try:
                print(f"  {package:14} {importlib.metadata.version(package)}")
            except importlib.metadata.PackageNotFoundError:
                print(f"  {package:14} missing: pip install 'harken[{extra}]'")
    if importlib.util.find_spec("torch") is None:
        print("Training and sampling are off; labeling, importing and statistics work.")
        return 0
    import torch

    from harken.engines.places import cache_folder, smollm2_file
    from harken.engines.precision import resolve_dtype
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"devices: {', '.join(devices) if devices else f'CPU, {torch.get_num_threads()} threads'}; "
          f"--dtype auto is {str(resolve_dtype('auto')).removeprefix('torch.')}")
    try:
        print(f"default model: {smollm2_file()}")
    except UserError as error:
        print(f"default model: {error}")
    print(f"converted models: {cache_folder()} ($HARKEN_CACHE moves it)")
    return 0
