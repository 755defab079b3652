"""What pyproject.toml cannot say: an editable installation installs the data files too.

setuptools asks a distribution for `has_data` before it does so, and has no such method of its own.
"""

from setuptools import Distribution, setup


class WithDataFiles(Distribution):
    def has_data(self) -> bool:
        return self.has_data_files()


setup(distclass=WithDataFiles)
