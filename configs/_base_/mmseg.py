# What every segmentation configuration shares.
_base_ = ["mmseg::_base_/default_runtime.py"]

custom_imports = dict(
    imports=["spikebench_tasks.segmentation.registered"], allow_failed_imports=False
)
tta = False  # whether several views of each test image are scored: tta_model, tta_pipeline
