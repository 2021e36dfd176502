"""Import every module of the installed package, for environments that must be complete without those of the tests."""

import importlib
import pkgutil

import dask_classifier

modules = [each.name for each in pkgutil.walk_packages(dask_classifier.__path__, "dask_classifier.")]
assert "dask_classifier.ec2.boot" in modules, modules
for module in modules:
    importlib.import_module(module)
print(f"all {len(modules)} modules can be imported")
