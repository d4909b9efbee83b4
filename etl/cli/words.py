"""Write counts and sizes for people."""


def counted(number: int, noun: str) -> str:
    """Write a count with its noun: 1 SID, 2,000 SIDs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def sized(octets: int) -> str:
    """Write a size in MB, kB or bytes."""
    for unit, size in (("MB", 1_000_000), ("kB", 1_000)):
        if octets >= size:
            return f"{octets / size:,.1f} {unit}"
    return counted(octets, "byte")
