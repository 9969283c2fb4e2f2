# What every detection configuration on published or small photographs shares.
_base_ = ["mmdet::_base_/default_runtime.py"]

custom_imports = dict(imports=["spikebench_tasks.detection.registered"], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(type="PlainCheckpointHook"))
tta = False  # whether several views of each test image are scored: tta_model, tta_pipeline
