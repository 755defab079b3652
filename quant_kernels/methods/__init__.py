"""The methods of the field, one small module each, imported by its path: `from quant_kernels.methods import awq`."""
