"""The ROS-free toolkit: training, classification, reports. `pip install .` for machines without ROS.

The ROS package is built by colcon from CMakeLists.txt.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name: str) -> list[str]:
    """Pinned requirements of a file in requirements/."""
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def shared(folder: str) -> list[tuple[str, list[str]]]:
    """Files of ``folder`` for the share directory, folder by folder."""
    paths = sorted(path for path in (ROOT / folder).rglob("*") if path.is_file())
    folders: dict[str, list[str]] = {}
    for path in paths:
        relative = path.relative_to(ROOT)
        folders.setdefault(f"share/battery_sorting/{relative.parent}", []).append(str(relative))
    return list(folders.items())


setup(
    name="battery_sorting",
    version="0.1.0",
    description="Runs a robotic battery sorting cell",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["battery_sorting", "battery_sorting.*"]),
    package_data={"battery_sorting": ["py.typed", "report/templates/*.j2", "ledger/migrations/*.mako"]},
    data_files=[*shared("config"), *shared("models")],
    install_requires=[*requirements("runtime.txt"), *requirements("wheels.txt")],
    extras_require={name: requirements(f"{name}.txt") for name in ("train", "openvino", "heif")},
    entry_points={"console_scripts": ["battery-sorting=battery_sorting.cli.main:main"]},
)
