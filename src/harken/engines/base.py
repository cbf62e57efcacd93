"""One model under several adapters: policy, reference, rewards and critic keep a copy of nothing else.

    base = Base(loaded)
    base.add(16, "policy")                  # a new adapter; base.read(folder) brings a saved one
    base.use(("policy",))                   # what the next passes compute with; () is the model itself, the reference

An engine names its adapters and asks for them before every pass (`Engine.hidden`), so engines of one base may take turns.
A reward model of the policy's own base thus costs its adapter's weights, computed unmerged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from harken.core.errors import UserError
from harken.engines import adapters, cpu
from harken.engines.form import Form

OWN = "default"
"""The first adapter's name: peft saves it without a folder of its own."""


class Base:
    """A model that engines share, loaded by `name`; `peft` is it with its adapters, once it has any."""

    def __init__(self, model: Any, template: Any, lineage: dict[str, Any], name: str = "",
                 form: Form | None = None) -> None:
        self.model, self.template, self.lineage, self.name = model, template, lineage, name
        self.form = form or Form()
        self.peft: Any = None
        self.layers: list[Any] = []
        self.parameters: list[tuple[str, nn.Parameter]] = []
        self.folders: dict[str, str] = {}
        self.count = 0
        self.trained: set[str] = set()
        self.active: tuple[str, ...] | None = None
        self.quantized = ""
        """In how few bits the model is held (fourbit.py); adapters that learnt on it say so."""

    def add(self, rank: int, name: str = OWN) -> str:
        """A new adapter on all linear layers, to be trained: its second factors 0, so that it changes nothing yet."""
        from peft import LoraConfig
        config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=adapters.targets(self.model),
                            task_type="CAUSAL_LM")
        config.fan_in_fan_out = any(type(m).__name__ == "Conv1D" for m in self.model.modules())
        with cpu.quiet():
            if self.peft is not None:
                # The first adapter's places: "all linear layers" would now mean the adapters' own as well.
                config.target_modules = next(iter(self.peft.peft_config.values())).target_modules
            self._open(name, config)
        self.trained.add(name)
        self._settle()
        return name

    def read(self, folder: Path, what: str = "The adapter") -> str:
        """A saved adapter, not to be trained; read once however many ask for it.

        Raises `UserError` where a tensor of the file does not arrive."""
        key = str(folder.resolve())
        if key not in self.folders:
            name, saved = f"read{self.count}", adapters.read_tensors(folder, what)
            self.count += 1
            try:
                with cpu.quiet():
                    self._open(name, adapters.own_config(folder))
            except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
                raise UserError(f"{what} cannot be loaded: {' '.join(str(error).split())[:200]}", "Copy it again.") from None
            adapters.fill(self.peft, name, saved, what)
            self.folders[key] = name
            self._settle()
        return self.folders[key]

    def _open(self, name: str, config: Any) -> None:
        from peft import get_peft_model
        if self.peft is None:
            self.peft = get_peft_model(self.model, config, adapter_name=name)
        else:
            self.peft.add_adapter(name, config)

    def drop(self, name: str) -> None:
        """Gives up an adapter that `read` brought; nobody computes with it any more."""
        self.use(())
        self.peft.delete_adapter(name)
        self.folders = {folder: other for folder, other in self.folders.items() if other != name}
        self._settle()

    def _settle(self) -> None:
        """Adapters in float32, and no casts of peft's own: autocast casts."""
        from peft.tuners.tuners_utils import BaseTunerLayer
        self.active = None
        self.layers = [m for m in self.model.modules() if isinstance(m, BaseTunerLayer)]
        self.parameters = [(n, p) for n, p in self.model.named_parameters() if "lora_" in n]
        for _, parameter in self.parameters:
            parameter.data = parameter.data.float()
        for layer in self.layers:
            layer.cast_input_dtype_enabled = False

    def use(self, names: tuple[str, ...]) -> None:
        """The adapters that the next passes add to the model, together."""
        if self.peft is None or names == self.active:
            return
        for layer in self.layers:
            layer.enable_adapters(bool(names))
            if names:
                layer.set_adapter(list(names))
        for name, parameter in self.parameters:  # peft lets an adapter learn only while it is used
            parameter.requires_grad_(name.split(".")[-2] in self.trained)
        self.active = names
