"""Whole numbers, rounded up."""


def ceil_div(a: int, b: int) -> int:
    """The least whole number that is not below a / b."""
    return -(-a // b)


def next_power_of_two(number: int, minimum: int = 1) -> int:
    """The least power of two that is neither below `number` nor below `minimum`, a power of two."""
    return max(minimum, 1 << max(number - 1, 0).bit_length())


def next_power_of_four(number: int) -> int:
    """The least power of four that is not below `number`."""
    return 1 << 2 * ceil_div(max(number - 1, 0).bit_length(), 2)
