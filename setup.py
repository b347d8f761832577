"""What pyproject.toml cannot say: the chunker in C is compiled where there is a compiler, and left out elsewhere."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "snapkeep.repository._chunker",
            ["src/snapkeep/repository/_chunker.c"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],  # one build for Python 3.11 and all later ones
            py_limited_api=True,
            extra_compile_args=["-O3"],
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
