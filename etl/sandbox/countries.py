"""Hold a world's material: countries, carriers, prices, channels and services.

Numbers are fictional. North America has 555-01xx behind an area code, other countries the same
seven digits behind a made-up prefix. Prices are of a real order, but no price list.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

# Draws are sixteen bits. A table of this many places is indexed by the upper ten.
PLACES = 1024
Value = TypeVar("Value")


class Carrier(NamedTuple):
    """Hold a mobile network: its name and its network code within the country."""

    name: str
    mnc: str


class Country(NamedTuple):
    """Hold a country: dialling, networks, price and how well its users convert."""

    iso: str
    dialling: str
    prefixes: tuple[str, ...]
    mcc: str
    carriers: tuple[Carrier, ...]
    locale: str
    currency: str
    price: int
    """The price of an SMS in ten-thousandths of the currency."""
    converts: float
    weight: int


def _carriers(text: str) -> tuple[Carrier, ...]:
    pairs = (item.split("=") for item in text.split(","))
    return tuple(Carrier(name, mnc) for name, mnc in pairs)


def _mobile(lead: str, width: int = 3) -> tuple[str, ...]:
    # Twelve prefixes a country: enough to differ, few enough to show traffic for each.
    tail = width - len(lead)
    return tuple(f"{lead}{(37 * step + 11) % 10**tail:0{tail}d}" for step in range(12))


_US = ("201", "212", "213", "305", "312", "404", "415", "503", "512", "617", "702", "713")
_CA = ("204", "250", "306", "403", "416", "418", "506", "514", "604", "613", "709", "902")

COUNTRIES = (
    Country("US", "1", _US, "310", _carriers("T-Mobile US=260,AT&T=410,Verizon=012"),
            "en", "usd", 83, 0.84, 30),
    Country("CA", "1", _CA, "302", _carriers("Rogers=720,Bell=610,Telus=220"),
            "en", "usd", 79, 0.83, 5),
    Country("GB", "44", _mobile("7", 4), "234", _carriers("EE=30,O2=10,Vodafone=15"),
            "en-GB", "usd", 463, 0.82, 9),
    Country("DE", "49", _mobile("15"), "262", _carriers("Telekom=01,Vodafone=02,O2=03"),
            "de", "eur", 871, 0.80, 6),
    Country("FR", "33", _mobile("6"), "208", _carriers("Orange=01,SFR=10,Bouygues=20"),
            "fr", "usd", 732, 0.80, 5),
    Country("ES", "34", _mobile("6"), "214", _carriers("Movistar=07,Orange=03,Vodafone=01"),
            "es", "eur", 655, 0.79, 5),
    Country("IT", "39", _mobile("3"), "222", _carriers("TIM=01,Vodafone=10,WindTre=88"),
            "it", "usd", 814, 0.78, 4),
    Country("BR", "55", _mobile("11", 4), "724", _carriers("Vivo=11,Claro=05,TIM=03"),
            "pt-BR", "usd", 331, 0.72, 8),
    Country("MX", "52", _mobile("55", 4), "334", _carriers("Telcel=020,Movistar=030,AT&T=050"),
            "es", "usd", 417, 0.71, 5),
    Country("CO", "57", _mobile("3"), "732", _carriers("Colombia Movil (Tigo)=103,Claro=101"),
            "es", "usd", 50, 0.66, 4),
    Country("IN", "91", _mobile("98", 4), "404", _carriers("Airtel=10,Jio=840,Vi=20"),
            "en", "usd", 725, 0.70, 7),
    Country("ID", "62", _mobile("81", 4), "510", _carriers("Telkomsel=10,Indosat=01,XL=11"),
            "id", "usd", 3492, 0.58, 4),
    Country("NG", "234", _mobile("80"), "621", _carriers("MTN=30,Glo=50,Airtel=20"),
            "en", "usd", 2861, 0.55, 3),
    Country("AU", "61", _mobile("4"), "505", _carriers("Telstra=01,Optus=02,Vodafone=03"),
            "en", "usd", 515, 0.83, 3),
    Country("JP", "81", _mobile("90", 4), "440", _carriers("NTT Docomo=10,KDDI=50,SoftBank=20"),
            "ja", "usd", 746, 0.81, 2),
)  # fmt: skip

# The fraud's country: a high price, and a prefix that nobody else uses.
PUMPED_COUNTRY = COUNTRIES[11]
PUMPED_PREFIX = "8990"

CHANNEL_WEIGHTS = {"sms": 770, "call": 60, "email": 60, "whatsapp": 70, "rbm": 38, "sna": 2}
RESEND_WEIGHTS = {"": 600, "call": 180, "whatsapp": 140, "sms": 80}
SERVICE_WEIGHTS = (56, 24, 15, 5)
# Factors, in hundredths, on the price of an SMS.
CHANNEL_PRICES = {"sms": 100, "call": 165, "whatsapp": 70, "rbm": 120, "email": 6, "sna": 40}
ERROR_CODES = ("30003", "30005", "30006", "30007", "30008")


def spread(values: tuple[Value, ...], weights: tuple[int, ...]) -> list[Value]:
    """Lay values out over PLACES places by their weights, for draws in one step.

    Each value gets at least one place, so that a rare one exists.
    """
    total = sum(weights)
    table: list[Value] = []
    for value, weight in zip(values, weights, strict=True):
        table.extend([value] * max(1, round(PLACES * weight / total)))
    filler = values[0]
    return table[-PLACES:] if len(table) > PLACES else [filler] * (PLACES - len(table)) + table
